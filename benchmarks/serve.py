"""What a server adds to its engine, and whether it holds: overhead, throughput, endurance, end.

The server is `scripts/serve.py` in a process of its own on this machine, which shares the cores
with its clients. Overhead and throughput are at 224 px, with SYNTHETIC JPEGs of 512 px; endurance
at the size of the run.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from attnvgg.data.cores import available_cores
from attnvgg.deploy.calibration import of_run
from attnvgg.deploy.predictor import Predictor
from benchmarks.infer import trained_run
from benchmarks.serve_clients import JPEG, Mixture, Server, rate, served

SIDE, CLIENTS, ROUNDS = 224, 32, 5
BARS = {"onnx": 0.9, "openvino": 0.9, "openvino-int8": 0.8}
OVERHEAD_BAR = 10.0  # milliseconds
REQUESTS, WARM_UP = 10_000, 2_000
GROWTH_BAR = 0.05
TOLERANCE = 0.002  # of a logit: less than between any two images that are sent


def larger(run: Path, folder: Path) -> Path:
    """Return a run with the same weights and images, for pictures of 224 px."""
    copy = folder / "run"
    shutil.copytree(run / "best", copy / "best")
    for name in ("config.yaml", "manifest.csv"):
        shutil.copyfile(run / name, copy / name)
    about = copy / "best" / "config.json"
    config = json.loads(about.read_text())
    config["preprocess"] |= {"size": SIDE, "resize": SIDE}
    about.write_text(json.dumps(config))
    return copy


def engine_rate(predictor: Predictor, seconds: float) -> float:
    """Return the images a second that the engine computes in batches of 8, alone."""
    images = np.random.default_rng(0).normal(size=(8, 3, SIDE, SIDE)).astype(np.float32)
    start, done = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        predictor.compute(images)
        done += 8
    return done / (time.perf_counter() - start)


def print_overhead(server: Server, files: Sequence[bytes], name: str) -> None:
    """Print what a request takes beyond its engine, one client, one image a request."""
    connection = server.connect()
    for data in files:
        server.ask(data)
    before, taken, repeats = server.engine_seconds(), [], 3
    for data in list(files) * repeats:
        start = time.perf_counter()
        connection.request("POST", "/invocations", data, JPEG)
        connection.getresponse().read()
        taken.append(1000 * (time.perf_counter() - start))
    connection.close()
    engine = 1000 * (server.engine_seconds() - before) / len(taken)
    found = statistics.median(taken) - engine
    met = "met" if found <= OVERHEAD_BAR else "not met"
    print(
        f"  {name}: {statistics.median(taken):.1f} ms a request at the median, engine "
        f"{engine:.1f}; beyond it {found:.1f} ms, decoding included   bar {OVERHEAD_BAR:g} ms: "
        f"{met}"
    )


def print_throughput(
    server: Server, predictor: Predictor, files: Sequence[bytes], name: str
) -> None:
    """Print the rate of many clients as a share of the engine's own, measured in turns."""
    rate(server, files, CLIENTS, 2)
    engine_rate(predictor, 1)
    pairs = [(rate(server, files, CLIENTS, 8), engine_rate(predictor, 5)) for _ in range(ROUNDS)]
    shares = [one / other for one, other in pairs]
    middle, bar = statistics.median(shares), BARS[name]
    met = "met" if middle >= bar else "not met"
    print(
        f"  {name}: {CLIENTS} clients {statistics.median(p[0] for p in pairs):.1f} images/s, "
        f"engine alone {statistics.median(p[1] for p in pairs):.1f}: {100 * middle:.0f} % "
        f"({100 * min(shares):.0f}-{100 * max(shares):.0f})   bar {100 * bar:.0f} %: {met}"
    )


def distinct(run: Path, paths: Sequence[str]) -> tuple[list[bytes], list[float]]:
    """Return files, and their logits, that are far enough apart for a swap to be seen."""
    found = Predictor(run, "openvino-int8")(paths)
    order = sorted((float(one.logits[0]), path) for one, path in zip(found, paths, strict=True))
    kept = order[:1]
    for logit, path in order:
        if logit > kept[-1][0] + 3 * TOLERANCE:
            kept.append((logit, path))
    assert len(kept) >= 32, "too many images are called alike"
    return [Path(path).read_bytes() for _, path in kept], [logit for logit, _ in kept]


def print_endurance(run: Path, files: Sequence[bytes], logits: Sequence[float]) -> None:
    """Print what came of thousands of requests of every kind."""
    mixture = Mixture(files, logits, TOLERANCE)
    with served(run, "--engine", "openvino-int8", "--page", "false") as server:

        def send(count: int, seed: int) -> None:
            with ThreadPoolExecutor(CLIENTS) as pool:
                jobs = [
                    pool.submit(mixture.work, server, 1000 * seed + number, share)
                    for number, share in enumerate(map(len, np.array_split(range(count), CLIENTS)))
                ]
                for job in jobs:
                    job.result()

        send(WARM_UP, 0)
        memory, open_files, start = [server.memory()], [server.files()], time.perf_counter()
        for part in range(1, 5):
            send(REQUESTS // 4, part)
            time.sleep(0.5)
            memory.append(server.memory())
            open_files.append(server.files())
        seconds = time.perf_counter() - start
    growth = max(memory[1:]) / memory[0] - 1
    tally = mixture.tally
    print(
        f"serve: {REQUESTS:,} requests of every kind after {WARM_UP:,}, {CLIENTS} clients, "
        f"{seconds:.0f} s"
    )
    counts = ", ".join(f"{k or 'cut off'}: {v}" for k, v in sorted(tally.statuses.items()))
    print(f"  answers by status: {counts}")
    print(f"  largest difference of a logit from direct prediction {tally.largest:.1e}")
    fine = "met" if not tally.wrong and not any(k >= 500 for k in tally.statuses) else "not met"
    print(
        f"  lost, swapped or wrong: {len(tally.wrong)} {tally.wrong[:3] or ''}   bar none: {fine}"
    )
    sizes = ", ".join(f"{size:.0f}" for size in memory)
    flat = "met" if growth <= GROWTH_BAR else "not met"
    print(f"  memory {sizes} MiB: {100 * growth:+.1f} %   bar 5 %: {flat}")
    leak = "met" if max(open_files[1:]) <= open_files[0] + 2 else "not met"
    print(f"  open files {open_files}   bar no more: {leak}")


def print_end(run: Path, files: Sequence[bytes]) -> None:
    """Print what a SIGTERM does to clients who keep asking."""
    answered, refused, lost, stop = [0], [0], [], threading.Event()
    with served(run, "--engine", "openvino-int8", "--page", "false") as server:

        def work(number: int) -> None:
            connection, place = server.connect(), number
            while not stop.is_set():
                try:
                    connection.connect()
                except OSError:
                    return  # nobody listens any more: not accepted
                try:
                    while not stop.is_set():
                        connection.request("POST", "/invocations", files[place % len(files)], JPEG)
                        response = connection.getresponse()
                        response.read()
                        (answered if response.status == 200 else refused)[0] += 1
                        place += 1
                        if response.will_close:
                            break
                except Exception as error:  # every kind of loss counts
                    lost.append(repr(error))
                    return
                finally:
                    connection.close()

        with ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(work, number) for number in range(16)]
            time.sleep(4)
            before = answered[0]
            server.process.terminate()
            code = server.process.wait(90)
            stop.set()
            for job in jobs:
                job.result()
    fine = "met" if code == 0 and not lost and not refused[0] else "not met"
    print(
        f"serve: SIGTERM under load: {before} answered before, {answered[0] - before} after it, "
        f"{refused[0]} refused, {len(lost)} lost {lost[:2] or ''}, exit code {code}   bar all "
        f"answered, 0: {fine}"
    )


def main() -> None:
    """Measure, and print a line each."""
    run: Any = trained_run()
    images = of_run(run)[0]
    assert images is not None
    paths = [Path(path) for path in images.paths[:64]]
    files = [path.read_bytes() for path in paths]
    print(f"serve: CPU, {available_cores()} cores, weights of {run.name}, {SIDE} px", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = larger(run, Path(folder))
        for name in BARS:
            predictor = Predictor(copy, name)
            with served(copy, "--engine", name, "--page", "false") as server:
                print_overhead(server, files, name)
                print_throughput(server, predictor, files, name)
            sys.stdout.flush()
    print_endurance(run, *distinct(run, images.paths[:256]))
    print_end(run, files)


if __name__ == "__main__":
    main()
