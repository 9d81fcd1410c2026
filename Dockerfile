# Images of the extension. The context is the folder of a release, with the results of make package:
#
#     docker build --target extension --tag pg_session_jwt:18 target/dist      # for CloudNativePG
#     docker build --tag postgres-with-pg_session_jwt:18 target/dist           # to try it
#
ARG PG=18

# The files alone, which CloudNativePG mounts into a pod of PostgreSQL 18 or later.
FROM scratch AS extension
ARG PG
ARG TARGETARCH=amd64
ADD pg_session_jwt-*-pg${PG}-${TARGETARCH}.tar.gz /
USER 65532:65532

# A server that preloads the extension. The official image has Debian's paths.
FROM postgres:${PG}
ARG PG
ARG TARGETARCH=amd64
RUN --mount=type=bind,target=/packages \
    dpkg --install /packages/postgresql-${PG}-pg-session-jwt_*_${TARGETARCH}.deb
CMD ["postgres", "-c", "shared_preload_libraries=pg_session_jwt"]
