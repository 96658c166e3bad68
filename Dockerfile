# Commands of mutbert, with all that they need: docker run --rm -v "$PWD:/data" mutbert mutbert score ...
#   docker build --build-arg TORCH_INDEX=URL -t mutbert .     CPU: URL is the index that pytorch.org shows for pip and CPU
#   docker build -t mutbert:cuda .                            CUDA: the wheels of pip's own index
#   --build-arg EXTRAS=all,workflow                           with Snakemake, too, for jobs on Kubernetes
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX="" EXTRAS=all
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/mutbert/bin:$PATH
WORKDIR /build
# First what rarely changes, so that it is downloaded once.
COPY constraints.txt ./
RUN python -m venv /opt/mutbert \
    && grep '^torch==' constraints.txt > torch.txt \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --constraint constraints.txt ".[$EXTRAS]" && pip check

FROM python:3.11-slim-bookworm
COPY --from=build /opt/mutbert /opt/mutbert
ENV PATH=/opt/mutbert/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --uid 1000 --create-home mutbert
USER 1000
WORKDIR /data
RUN mutbert --help > /dev/null && python -c "import torch, mutbert.training.pretrain"
CMD ["mutbert", "--help"]
