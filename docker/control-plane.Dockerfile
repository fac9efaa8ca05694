# API, controller, migrations and the command line: no torch, no Ray. Build from the repository's root.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm
FROM ${BASE_IMAGE} AS build
# control-plane-full: also with what looks at rows before there is a job, and what tells MLflow and W&B
ARG LOCK=control-plane
# where packages come from, if not from pip's default; not kept in the image
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements/${LOCK}.lock requirements/build.lock requirements/
RUN python3 -m venv /opt/plumbline \
    && python3 -m venv /opt/build \
    && /opt/plumbline/bin/pip install --no-deps --require-hashes -r "requirements/${LOCK}.lock" \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE plumbline.py ./
COPY api api
COPY service service
COPY workers workers
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/plumbline/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/plumbline/bin/pip uninstall --yes pip setuptools

# docker build --target sbom --output . : the bill of materials of what is in the image, as CycloneDX
FROM build AS bill
COPY requirements/sbom.lock requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/sbom.lock \
    && /opt/build/bin/cyclonedx-py environment --output-reproducible --output-file /sbom.json /opt/plumbline/bin/python3
FROM scratch AS sbom
COPY --from=bill /sbom.json /control-plane.sbom.json

FROM ${BASE_IMAGE}
COPY --from=build /opt/plumbline /opt/plumbline
ENV PATH=/opt/plumbline/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /tmp
EXPOSE 8700 9700
ENTRYPOINT ["plumbline"]
CMD ["--help"]
