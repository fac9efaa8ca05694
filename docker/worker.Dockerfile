# Every pod of the Ray cluster: Ray, torch for CUDA, vLLM and our workers. The CUDA libraries are wheels of the lock;
# the driver is the node's. Build from the repository's root.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm
FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements/worker.lock requirements/build.lock requirements/
RUN python3 -m venv /opt/plumbline \
    && python3 -m venv /opt/build \
    && /opt/plumbline/bin/pip install --no-deps --require-hashes -r requirements/worker.lock \
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
COPY --from=bill /sbom.json /worker.sbom.json

FROM ${BASE_IMAGE}
# triton and inductor compile as jobs run; KubeRay's probes ask with bash and wget
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash g++ libnuma1 wget \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/plumbline /opt/plumbline
# FlashInfer's sampler, which vLLM takes by default, is compiled by nvcc as an engine starts; there is none here
ENV PATH=/opt/plumbline/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 \
    VLLM_USE_FLASHINFER_SAMPLER=0
USER 1000:1000
WORKDIR /tmp
CMD ["bash"]
