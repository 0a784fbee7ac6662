# The images of Berth and of its tests. Targets: operator (the last, and so the default), fakegpu, samples.
#
#   docker build --tag berth .
#
# Dependencies come from the package index, checked by hash; or from vendor/operator and vendor/fakegpu in the
# build context, where `python -m e2e.cluster.images` puts them for engines that reach no index. BASE_IMAGE is
# any Linux with Python 3.11 or later as python3 and a shell for the build; what runs needs no shell.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.vendor="The Berth authors" \
      org.opencontainers.image.licenses="Apache-2.0"

# Small programs of the standard library alone, which the examples run.
FROM base AS samples
LABEL org.opencontainers.image.title="berth-samples" \
      org.opencontainers.image.description="Training and serving programs of Berth's examples"
COPY docs/examples/programs /programs
WORKDIR /programs
USER 65532:65532
CMD ["python3"]

# Dependencies change rarely: they come first, byte-compiled here since a read-only root can't keep bytecode.
FROM base AS dependencies
COPY requirements.lock vendor* /build/
RUN [ -d /build/operator ] || python3 -m pip install --no-cache-dir --no-compile --require-hashes \
      --target /build/operator --requirement /build/requirements.lock
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /build/operator

FROM base AS fakegpu-dependencies
COPY requirements-dev.lock vendor* /build/
RUN [ -d /build/fakegpu ] || { \
      awk '/^[a-z]/ {wanted = /^(grpcio|protobuf|typing-extensions)==/} wanted' /build/requirements-dev.lock \
        > /build/fakegpu.lock && \
      python3 -m pip install --no-cache-dir --no-compile --require-hashes \
        --target /build/fakegpu --requirement /build/fakegpu.lock; }

FROM base AS berth
COPY --from=dependencies /build/operator /opt/berth
RUN printf '#!/usr/bin/env python3\nfrom berth.cli.main import app\n\napp()\n' > /usr/local/bin/berth && \
    chmod 755 /usr/local/bin/berth
ENV PYTHONPATH=/opt/berth

# Plays the kubelet's GPU device plugin, and mig-manager, on nodes without a GPU. For tests.
FROM berth AS fakegpu
LABEL org.opencontainers.image.title="berth-fakegpu" \
      org.opencontainers.image.description="A fake GPU fleet for Berth's tests"
COPY --from=fakegpu-dependencies /build/fakegpu /opt/berth
COPY operator/berth /opt/berth/berth
COPY e2e/__init__.py /opt/berth/e2e/
COPY e2e/fakegpu /opt/berth/e2e/fakegpu
USER 65532:65532
ENTRYPOINT ["python3", "-m", "e2e.fakegpu"]

FROM berth AS operator
LABEL org.opencontainers.image.title="berth" \
      org.opencontainers.image.description="A Kubernetes operator that gives every GPU workload its berth"
COPY operator/berth /opt/berth/berth
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/berth/berth
USER 65532:65532
ENTRYPOINT ["berth"]
