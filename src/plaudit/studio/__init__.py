"""The studio: generation, listening tests and tuning in a browser, over an HTTP API (`pip install 'plaudit[studio]'`).

The server process imports no PyTorch; whatever needs it is a job of the worker process (`jobs.py`, `worker.py`).
"""
