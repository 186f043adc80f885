# amnesis on a CPU, with the releases of constraints.txt, as a user without rights.
#
#   docker build -t amnesis .
#   docker run --rm amnesis demo
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" amnesis run forget.yaml --out runs/first
#
# The package index's torch brings CUDA along. PyTorch's own index of CPU builds makes an image that
# is several GB smaller: --build-arg TORCH_INDEX=ADDRESS, as pytorch.org's "Get started" names it.
FROM python:3.11-slim AS build
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PATH=/opt/amnesis/bin:$PATH
RUN python -m venv /opt/amnesis
WORKDIR /source
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY plugins plugins
COPY evaluation evaluation
RUN pip install --constraint constraints.txt '.[report]'

FROM python:3.11-slim
COPY --from=build /opt/amnesis /opt/amnesis
RUN useradd --create-home amnesis && install -d -m 1777 /work
# A user of any number has a name and a home: libraries ask for both.
ENV PATH=/opt/amnesis/bin:$PATH HOME=/tmp LOGNAME=amnesis PYTHONUNBUFFERED=1
USER amnesis
WORKDIR /work
ENTRYPOINT ["amnesis"]
CMD ["--help"]
