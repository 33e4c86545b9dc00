# The API with its loops, the dashboard and the migrations. No torch, no OpenCV: those are the worker's.
# Plain Dockerfile syntax, so that builders without BuildKit build it too.

FROM node:20-bookworm-slim AS pages
WORKDIR /pages
COPY api/dashboard/package.json api/dashboard/package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund

FROM python:3.11-slim-bookworm AS names
WORKDIR /src
COPY pyproject.toml docker/requirements.py ./
RUN python requirements.py api postgres > /requirements.txt

# What is named, and nothing of the project: this layer is kept while the code changes, and
# an update of a server adds only the code.
FROM python:3.11-slim-bookworm AS dependencies
# For builds that must not, or cannot, use the public package index.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_FIND_LINKS=/wheels
COPY docker/wheels /wheels
# Without pip inside: nothing can be installed into a running container.
RUN python -m venv --without-pip /opt/trainshed
COPY constraints.txt /
COPY --from=names /requirements.txt /
RUN python -m pip --python /opt/trainshed install --no-cache-dir -c /constraints.txt -r /requirements.txt

FROM dependencies AS code
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY yolocore yolocore
COPY api api
RUN python -m pip --python /opt/trainshed install --no-cache-dir --no-deps --root /code .
COPY --from=pages /pages/node_modules /code/opt/trainshed/lib/python3.11/site-packages/api/dashboard/node_modules
COPY docker/prepare.py /code/opt/trainshed/share/

FROM python:3.11-slim-bookworm
# The folders exist with their owner, so that fresh named volumes take it over from them.
RUN groupadd --gid 10001 trainshed \
    && useradd --uid 10001 --gid trainshed --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trainshed \
    && install -d -o trainshed -g trainshed /data /data/cache \
    && install -d -o trainshed -g trainshed -m 0700 /data/secrets
COPY --from=dependencies /opt/trainshed /opt/trainshed
COPY --from=code /code/opt/trainshed /opt/trainshed
ENV PATH=/opt/trainshed/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    TRAINSHED_DATA_DIR=/data \
    TRAINSHED_HOST=0.0.0.0
WORKDIR /data
USER 10001:10001
EXPOSE 8000
# -P keeps the working folder, which holds what users sent, off the import path.
CMD ["python", "-P", "-m", "api.server"]
