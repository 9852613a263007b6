# Serves indexes that are mounted at /indexes; keys come from the environment. docs/serving.md says more.
FROM python:3.13-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++=4:12.* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# The tree itself has no version to pin, and pyproject.toml has those of what it needs.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --prefix=/installed ".[serve]"

FROM python:3.13-slim-bookworm
COPY --from=build /installed /usr/local
RUN useradd --uid 10001 --no-create-home lateint
USER 10001
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz')"]
ENTRYPOINT ["lateint", "serve", "--host", "0.0.0.0"]
CMD ["--help"]
