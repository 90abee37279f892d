# The server for NVIDIA GPUs: CUDA's libraries come as wheels, the driver from the host (docker run --gpus all).
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY jaxserve jaxserve
# gpu, gpu-cuda12 or tpu.
ARG EXTRA=gpu
RUN pip install --no-cache-dir ".[${EXTRA}]" && mkdir -m 1777 /cache
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface
VOLUME /cache
USER 10001
EXPOSE 8000
ENTRYPOINT ["jaxserve"]
CMD ["serve", "--host", "0.0.0.0"]
