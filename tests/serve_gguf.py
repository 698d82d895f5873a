"""Serve a GGUF file by llama.cpp's own server until the standard input ends: python serve_gguf.py FILE PORT"""

import importlib
import sys

llama = importlib.import_module("xllamacpp")  # of the extra `llama-cpp`
params = llama.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.warmup = 4096, 4, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = llama.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
