#
#   docker build -t backburner .
#   docker run --read-only --cap-drop ALL -v backburner:/data -p 9000:9000 -e BACKBURNER_UPSTREAM__URL=http://… backburner
#   docker buildx build --sbom=true --provenance=true …     an SBOM in the image's index, or, without Docker:
#   cyclonedx-py requirements requirements/all.txt     all that it installs, with hashes
#
# tests/deploy/test_image.py plays these steps in a directory of its own.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/backburner
COPY requirements/all.txt requirements/demo.txt ./
# hatchling (the build backend) comes from the demo lock, and stays behind in this stage.
RUN /opt/backburner/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r all.txt \
 && python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r demo.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /opt/tools/bin/python -m hatchling build -t wheel -d /wheel \
 && /opt/backburner/bin/pip install --no-cache-dir --no-deps /wheel/*.whl \
 && /opt/backburner/bin/python -m compileall -q /opt/backburner/lib

# The simulated model server of the demo, for compose.yaml: docker build --target demo .
FROM python:3.11-slim-bookworm AS demo
COPY --from=build /opt/backburner /opt/backburner
COPY demo /demo-server/demo
WORKDIR /demo-server
USER 65532:65532
EXPOSE 8000
CMD ["/opt/backburner/bin/python", "-m", "demo.model_server", "--host", "0.0.0.0", "--port", "8000"]

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="backburner" org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    BACKBURNER_SERVER__HOST=0.0.0.0 \
    BACKBURNER_SERVER__ADMIN_HOST=0.0.0.0
COPY --from=build /opt/backburner /opt/backburner
RUN install -d -o 65532 -g 65532 -m 0700 /data
USER 65532:65532
VOLUME /data
# There is the database file, unless store.url names a database; then only what a run puts aside for a while.
WORKDIR /data
EXPOSE 9000 9001
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["/opt/backburner/bin/python", "-I", "-m", "gateway", "healthcheck"]
# -I: nothing outside the image is ever imported.
ENTRYPOINT ["/opt/backburner/bin/python", "-I", "-m", "gateway"]
CMD ["serve"]
