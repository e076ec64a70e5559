"""A server of a model in a thread of this process, for tests that go through HTTP."""

import threading
import time
from contextlib import contextmanager

import uvicorn

from attnvgg.cli.serve import ServeConfig, assemble
from attnvgg.deploy.serving.server import open_socket, patient


@contextmanager
def served(model, token=None, **options):
    """Serve a model by PyTorch; yield its address."""
    config = ServeConfig(str(model), engine="eager", device="cpu", page=False, **options)
    guard, _ = assemble(config, token)
    with open_socket("127.0.0.1", 0) as listener:
        http = patient(config.limits)
        server = uvicorn.Server(uvicorn.Config(guard, http=http, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < until
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
