# The server for NVIDIA GPUs: CUDA's libraries come as wheels, the driver from the host (docker run --gpus all).
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY jaxserve jaxserve
RUN pip install --no-cache-dir '.[gpu]'
EXPOSE 8000
ENTRYPOINT ["jaxserve"]
CMD ["serve", "--host", "0.0.0.0"]
