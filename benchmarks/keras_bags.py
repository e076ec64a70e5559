"""Recipe K in Keras itself, one bag a step, for `benchmarks/bags.py`.

The network and the call of `fit` are those of the example of Keras, written anew; as in
`baseline_bags`, weighted instances are summed and the bags are one tensor. Not a dependency: where
it is not installed (`pip install tensorflow-cpu`), the comparison is left out.
"""

from __future__ import annotations

import importlib.util
import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def is_installed() -> bool:
    """Tell whether Keras and a library that it computes with are here."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    needed = ("keras", os.environ["KERAS_BACKEND"])
    return all(importlib.util.find_spec(name) for name in needed)


def train_keras(bags: Arrays, start: Arrays, seed: int) -> list[tuple[float, float]]:
    """Train recipe K; to be called in a process of its own.

    Args:
        bags: `train`, `val` (B, N, 28, 28) and their labels `train_label`, `val_label`.
        start: first weights: `hidden`, `features`, `V`, `U`, `w`, `head`, each (out, in).
        seed: of the order of the bags.

    Returns:
        For each epoch its validation loss, with weights of the classes and without a penalty, and
        the seconds until its end, without those that this figure takes.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    from keras import layers, ops

    class Attention(layers.Layer):  # type: ignore[misc]
        def build(self, shape: tuple[int | None, ...]) -> None:
            decay = keras.regularizers.L2(0.01)
            sizes = {"V": (shape[-1], 256), "U": (shape[-1], 256), "w": (256, 1)}
            for name, size in sizes.items():
                setattr(self, name, self.add_weight(shape=size, regularizer=decay, name=name))

        def call(self, h: Any) -> Any:
            gated = ops.tanh(ops.matmul(h, self.V)) * ops.sigmoid(ops.matmul(h, self.U))
            return ops.sum(ops.softmax(ops.matmul(gated, self.w), axis=1) * h, axis=1)

    keras.utils.set_random_seed(seed)
    taken = keras.Input(bags["train"].shape[1:])
    instances = layers.Reshape((bags["train"].shape[1], 784))(taken)
    hidden, features = layers.Dense(128, activation="relu"), layers.Dense(64, activation="relu")
    attention, head = Attention(), layers.Dense(2, activation="softmax")
    model = keras.Model(taken, head(attention(features(hidden(instances)))))
    for layer, name in ((hidden, "hidden"), (features, "features"), (head, "head")):
        layer.kernel.assign(start[name].T)
    for name in ("V", "U", "w"):
        getattr(attention, name).assign(start[name].T)
    counts = np.bincount(bags["train_label"], minlength=2)
    weights = len(bags["train_label"]) / (2 * counts)
    found: list[tuple[float, float]] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        spent = 0.0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            truth = bags["val_label"]
            answers = np.asarray(model.predict(bags["val"], verbose=0), dtype=np.float64)
            right = np.maximum(answers[np.arange(len(truth)), truth], 1e-30)
            found.append(
                (float(np.mean(-np.log(right) * weights[truth])), now - begun - self.spent)
            )
            self.spent += time.perf_counter() - now

    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    begun = time.perf_counter()
    model.fit(
        bags["train"], bags["train_label"], validation_data=(bags["val"], bags["val_label"]),
        epochs=20, batch_size=1, verbose=0, class_weight=dict(enumerate(weights.tolist())),
        callbacks=[Watch(), keras.callbacks.EarlyStopping("val_loss", patience=10)],
    )  # fmt: skip
    return found
