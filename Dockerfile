# One image for all programs: docker run … justiam api | worker | migrate | setup-temporal | sweep | audit invariants
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

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin justiam
COPY --from=build /opt/justiam /opt/justiam
ENV PATH=/opt/justiam/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    JUSTIAM_API_HOST=0.0.0.0
USER 10001
EXPOSE 8000
ENTRYPOINT ["justiam"]
CMD ["api"]
