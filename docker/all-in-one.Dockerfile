# Everything on a machine without a GPU: `plumbline up`, `plumbline demo`, or a pod of a Ray cluster of CPUs. Build from
# the repository's root, with PIP_EXTRA_INDEX_URL at PyTorch's CPU wheels.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm
FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements/all-in-one.lock requirements/build.lock requirements/
RUN python3 -m venv /opt/plumbline \
    && python3 -m venv /opt/build \
    && /opt/plumbline/bin/pip install --no-deps --require-hashes -r requirements/all-in-one.lock \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE plumbline.py ./
COPY api api
COPY service service
COPY workers workers
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/plumbline/bin/pip install --no-deps --no-index /wheels/*.whl

FROM build AS bill
COPY requirements/sbom.lock requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/sbom.lock \
    && /opt/build/bin/cyclonedx-py environment --output-reproducible --output-file /sbom.json /opt/plumbline/bin/python3
FROM scratch AS sbom
COPY --from=bill /sbom.json /all-in-one.sbom.json

FROM ${BASE_IMAGE}
# vLLM compiles with g++ as it starts
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash g++ libnuma1 wget \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/plumbline /opt/plumbline
ENV PATH=/opt/plumbline/bin:$PATH HOME=/tmp PLUMBLINE_HOME=/tmp/plumbline PLUMBLINE_SERVING_DEVICE=cpu \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /tmp
EXPOSE 8700
CMD ["plumbline", "up"]
