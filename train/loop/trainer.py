"""The training loop: SGD or Muon with a schedule, NQ noise calibrated after every epoch, exact resume."""

import copy
import math
import operator
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # type: ignore[attr-defined]

from nqlava.command.files import reading
from nqlava.command.progress import progress
from nqlava.errors import InputError
from train.data.augment import alternating, augment
from train.data.image_set import Batches, DataError
from train.data.stream import Images
from train.loop import checkpoint
from train.loop.calibrate import Evaluation, accuracy, balance_thresholds, evaluate, set_noise
from train.loop.checkpoint import CheckpointError, ModelFile
from train.loop.optimizer import Optimizers
from train.loop.processes import Processes
from train.loop.recipe import Recipe
from train.model.activation import Neuron, NoisePool
from train.model.fake_quantize import attach, bake
from train.model.kernels import Kernels, compiled_kernels
from train.model.lowered import Lowered, to_be_trained
from train.model.models import MODELS, Network, begin_with_identity
from train.model.snn import read_outs

STATISTICS_IMAGES = 256  # held-out images for the batch norm of a converted network
THRESHOLD_IMAGES = 512  # held-out images on which the thresholds of ReLU networks are calibrated


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False


def choose_kernels(steps: int, device: torch.device) -> Kernels:
    """Compiled activation passes where a compiler is there and the training is long enough to pay for it."""
    if steps < 500 or (device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++")))):
        return Kernels()
    kernels = compiled_kernels()
    one = torch.ones((), device=device)
    z = torch.zeros(1, 8, 2, 2, device=device)
    try:
        kernels.quantize_backward(kernels.quantize_forward(z, one, one, z, 4), one, z, 4)
    except Exception as error:
        warnings.warn(f"torch.compile is not usable here ({type(error).__name__}); training runs slower", stacklevel=2)
        return Kernels()
    return kernels


def train(
    recipe: Recipe,
    data: Images,
    *,
    out: Path,
    device: torch.device,
    resume: bool = False,
    start: Network | None = None,
    teacher: nn.Module | None = None,
    processes: Processes | None = None,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> Network:
    """Train and return the network of the best epoch, judged on held-out images.

    An NQ network is judged by the SNN's accuracy at T = induction_steps (with snn_steps by that of its read_outs), a
    ReLU network by its own. After every epoch the state is written to ``<out>.checkpoint``; with ``resume`` training
    continues from there, and on a CPU ends with the same weights as without the interruption. ``out`` itself is
    written at the end.

    Args:
        recipe: see :class:`Recipe`.
        data: the training set; ``recipe.validation`` images of it are held out.
        out: path of the model file.
        device: where to train.
        resume: continue from the checkpoint.
        start: network to train further, a copy of it, in place of a new one.
        teacher: gives the scores of the distillation; without it the network to start from, without spikes.
        processes: those that train together; alone without it.
        log: called by rank 0 after every epoch with its number, from 1, and numbers by name, such as accuracy/ANN.

    Raises:
        CheckpointError: with ``resume``, where the checkpoint is missing or made with another recipe; without, where
            it is of a training that has not ended.
        DataError: where the images are of another size than the model's, or not more than those held out.
        InputError: where less than one batch is left to train on.
    """
    training = Training(recipe, data, device=device, start=start, teacher=teacher, processes=processes)
    path = checkpoint_path(out)
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"score": -1.0, "epoch": -1, "state": {}}
    if resume:
        history, best = training.restore(path)
    else:
        require_finished(path)
        if start is not None:
            training.measure()
    began, done = time.monotonic(), len(history)
    for epoch in range(done, recipe.epochs):
        loss, train_accuracy = training.epoch(epoch)
        if not math.isfinite(loss):
            raise InputError(
                f"loss of epoch {epoch + 1} is {loss}; allowed: finite numbers, with a smaller learning rate"
            )
        result = training.measure()
        entry = {"epoch": epoch + 1, "loss": loss, "train": train_accuracy, "ann": result.ann}
        score, found = result.ann, f"ANN {result.ann:5.2f} %"
        if result.snn:
            entry["snn"] = result.snn[-1]
            found += f", SNN T={len(result.snn)} {result.snn[-1]:5.2f} %"
            every = recipe.snn_steps and recipe.read_outs == "all"
            score = sum(result.snn) / len(result.snn) if every else result.snn[-1]
        history.append(entry)
        if score > best["score"]:
            state = {key: value.detach().cpu().clone() for key, value in training.result.state_dict().items()}
            best = {"score": score, "epoch": epoch + 1, "state": state}
        if training.processes.rank == 0:
            checkpoint.save(path, {**training.state(), "history": history, "best": best})
            left = (time.monotonic() - began) / (epoch + 1 - done) * (recipe.epochs - epoch - 1)
            print(
                f"epoch {epoch + 1:3}/{recipe.epochs}  loss {loss:.3f}  train {train_accuracy:5.2f} %  "
                f"held-out: {found}  remaining {int(left) // 60}:{int(left) % 60:02}",
                flush=True,
            )
            if log is not None:
                log(epoch + 1, {"loss": loss, "accuracy/train": train_accuracy, **training.numbers(result)})
    network = training.result
    network.load_state_dict(best["state"])
    bake(network)
    if recipe.activation == "relu":
        images = training.threshold_images()
        try:
            balance_thresholds(network.eval(), images, recipe.induction_steps, recipe.threshold_scale)
        except InputError as error:
            raise InputError(f"{error}; continue with --resume and more --induction-steps") from None
    info = {
        "recipe": asdict(recipe),
        "data": data.digest(),
        "history": history,
        "epoch": best["epoch"],
        "torch": str(torch.__version__),
        "python": sys.version.split()[0],
        "validation_ann" if recipe.activation == "relu" else "validation_snn": best["score"],
    }
    if training.processes.rank == 0:
        made = ModelFile(network, recipe.model, tuple(data.classes), info, recipe.activation, recipe.reset)
        checkpoint.write_model(out, made)
    return network.eval()


def checkpoint_path(out: Path) -> Path:
    """Where the state of the training of the model file ``out`` is kept."""
    return out.with_name(out.name + ".checkpoint")


def require_finished(path: Path) -> None:
    """CheckpointError where a new training would replace the checkpoint of one that has not ended."""
    with reading(path):
        if not path.exists():
            return
    content = checkpoint.load(path)
    try:
        done, epochs = len(content["history"]), operator.index(content["recipe"]["epochs"])
    except (KeyError, TypeError, RuntimeError):
        raise CheckpointError(f"{path}: not a checkpoint; allowed: a file written while train.cifar runs") from None
    if done < epochs:
        raise CheckpointError(
            f"{path}: holds a training that has done {done} of {epochs} epochs; allowed: --resume to continue it, "
            "another --out, or to remove that file"
        )


class Training:
    """A network in training, with its optimizer and its data.

    Args: see :func:`train`; kernels: of the activations, chosen for the training without it.

    Attributes:
        network: what the optimizer changes.
        result: what is evaluated and written: the network, or the moving average of it.
        processes: those that train together.
        classes: names.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Images,
        *,
        device: torch.device,
        start: Network | None = None,
        teacher: nn.Module | None = None,
        processes: Processes | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.recipe, self.device, self.processes = recipe, device, processes or Processes()
        self.precision = torch.bfloat16 if recipe.bfloat16 else torch.float32
        self._data_digest = data.digest()
        self.classes = data.classes
        rest, held_out = data.split(recipe.validation, recipe.seed)
        if len(rest) < recipe.batch:
            raise InputError(f"batch is {recipe.batch}; allowed: up to the {len(rest)} training images")
        if len(held_out) < self.processes.count:
            raise InputError(
                f"validation is {len(held_out)}; allowed: at least {self.processes.count}, the number of processes"
            )
        torch.manual_seed(recipe.seed)
        if start is None:
            network = MODELS[recipe.model](
                len(self.classes),
                activation=recipe.activation,
                levels=recipe.levels,
                threshold=recipe.threshold,
                reset=recipe.reset,
                dropout=recipe.dropout,
                size=data.shape[1],
            )
        elif isinstance(start, Lowered):
            with closing(held_out.batches(STATISTICS_IMAGES)) as batches:
                images = next(batches)[0].cpu()
            steps = recipe.snn_steps or recipe.induction_steps
            network = to_be_trained(start, images, steps, spikes=recipe.snn_steps > 0)
        else:
            network = copy.deepcopy(start)
            for module in network.modules():
                if isinstance(module, nn.Dropout):
                    module.p = recipe.dropout
                elif isinstance(module, Neuron):
                    module.initial = torch.full_like(module.threshold, module.usual)
        if data.shape != network.input_shape:
            raise DataError(f"data: images are {data.shape}; allowed: {network.input_shape} for {recipe.model}")
        if recipe.filters == "identity" and start is None:
            begin_with_identity(network)
        self._teacher: nn.Module | None = None
        if recipe.distillation:
            if start is None:
                raise InputError(
                    f"distillation is {recipe.distillation} without a teacher; allowed: with --init or --pretrained"
                )
            self._teacher = copy.deepcopy(teacher or start).to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if recipe.weight_bits:
            attach(network, recipe.weight_bits, recipe.layer_bits)
        self.network: Network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._rest, self._held_out = rest.to(device), held_out.to(device)
        kernels = kernels or choose_kernels(recipe.epochs * (len(rest) // recipe.batch), device)
        for layer in self.network.activations:
            layer.kernels = kernels
        self._average: AveragedModel | None = None
        if recipe.average:
            decay = get_ema_multi_avg_fn(recipe.average)
            self._average = AveragedModel(self.network, multi_avg_fn=decay, use_buffers=True)  # type: ignore[call-arg]
        self.result: Network = self.network if self._average is None else self._average.module
        self._parallel = self.processes.wrap(self.network)
        self.optimizer = Optimizers(self.network, recipe)

    def batches(self, epoch: int) -> Batches:
        """This process's part of the training images of one epoch, augmented, and the noise for it.

        All randomness comes from the seed, the epoch and, in several processes, the rank.
        """
        recipe, rank = self.recipe, self.processes.rank
        seed = recipe.seed * 1_000_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + (rank << 50))
        pool = None
        if not recipe.snn_steps and any(float(layer.sigma) > 0 for layer in self.network.activations):
            largest = max(s.numel() for s in self.network.activation_shapes(recipe.batch))
            pool = NoisePool(2 * largest, dtype=self.precision, device=self.device, generator=generator)
        for layer in self.network.activations:
            layer.noise = pool.like if pool else None
        order, share = self.processes.share(torch.randperm(len(self._rest), generator=generator), recipe.batch)
        if rank:
            generator.manual_seed(seed + (rank << 50))
        flips = alternating(len(self._rest), recipe.seed, epoch) if recipe.flip == "alternating" else None

        def change(images: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
            mirrored = None if flips is None else flips[indices]
            options: dict[str, Any] = {"pad": recipe.crop, "border": recipe.border, "mirrored": mirrored}
            return augment(images, generator, cutout=recipe.cutout, policy=recipe.policy, **options)

        with closing(self._rest.training_batches(order, share, generator, change)) as found:
            yield from found

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer, at its present learning rate; (loss, number of correct images)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            if self.recipe.snn_steps:
                scores = read_outs(self._parallel, images, self.recipe.snn_steps)
                scores = scores if self.recipe.read_outs == "all" else scores[-1:]
            else:
                scores = self._parallel(images)[None]
        loss = self.loss(scores.float(), images, labels)
        self.optimizer.step(loss)
        with torch.no_grad():
            for layer in self.network.activations:
                layer.threshold.clamp_(min=1e-3)
        if self._average is not None:
            self._average.update_parameters(self.network)
        return loss.detach(), (scores[-1].argmax(1) == labels).sum()

    def loss(self, scores: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of all read-outs (R, N, K): (1 − d) · cross entropy with the smoothed labels + d · distillation."""
        share, tau, count = self.recipe.distillation, self.recipe.temperature, len(scores)
        flat = scores.flatten(0, 1)
        smoothing = self.recipe.label_smoothing
        loss = nn.functional.cross_entropy(flat, labels.repeat(count), label_smoothing=smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            targets = (self._teacher(images).float() / tau).softmax(1).repeat(count, 1)
        return (1 - share) * loss + share * tau**2 * nn.functional.cross_entropy(flat / tau, targets)

    def epoch(self, epoch: int) -> tuple[float, float]:
        """One pass; (mean loss, accuracy in percent on the augmented images)."""
        recipe = self.recipe
        steps = len(self._rest) // recipe.batch
        share = recipe.batch // self.processes.count
        losses = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.long, device=self.device)
        self.network.train()
        with (
            progress(steps, "steps", f"epoch {epoch + 1}", shown=self.processes.rank == 0) as bar,
            closing(self.batches(epoch)) as batches,
        ):
            for step, (images, labels) in enumerate(batches):
                self.optimizer.set_rate(recipe.rate((epoch + step / steps) / recipe.epochs))
                loss, right = self.step(images, labels)
                losses += loss
                correct += right
                if step % 10 == 9 or step == steps - 1:
                    seen = (step + 1) * share
                    bar.set_postfix(
                        loss=f"{float(losses) / (step + 1):.3f}", accuracy=f"{100 * int(correct) / seen:.1f} %"
                    )
                    bar.update(step % 10 + 1)
        mean = self.processes.mean((float(losses) / steps, 100 * int(correct) / (steps * share)), 1, self.device)
        return mean[0], mean[1]

    def measure(self) -> Evaluation:
        """Accuracies on the held-out images; stores their σ_l in an NQ network."""
        recipe, everyone = self.recipe, self.processes
        everyone.equalize(self.result)
        part = self._held_out.subset(torch.arange(everyone.rank, len(self._held_out), everyone.count))
        if recipe.activation == "relu":
            (ann,) = everyone.mean([accuracy(self.result, part, precision=self.precision)], len(part), self.device)
            return Evaluation(ann=ann, snn=(), sigma=())
        found = evaluate(self.result, part, recipe.snn_steps or recipe.induction_steps, precision=self.precision)
        values = [found.ann, *found.snn, *(sigma**2 for sigma in found.sigma)]
        ann, *rest = everyone.mean(values, len(part), self.device)
        snn, variances = rest[: len(found.snn)], rest[len(found.snn) :]
        result = Evaluation(ann=ann, snn=tuple(snn), sigma=tuple(variance**0.5 for variance in variances))
        for network in {self.network, self.result}:
            set_noise(network, result.sigma, recipe.noise_factor)
        return result

    def numbers(self, measured: Evaluation) -> dict[str, float]:
        """What a plot over the epochs may show: accuracies on held-out images, σ and threshold of every activation."""
        found = {"accuracy/ANN": measured.ann}
        found |= {f"accuracy/SNN T={step}": value for step, value in enumerate(measured.snn, 1)}
        found |= {f"sigma/activation {index}": value for index, value in enumerate(measured.sigma, 1)}
        for index, layer in enumerate(self.result.activations, 1):
            found[f"threshold/activation {index}"] = float(layer.threshold)
        return found

    def threshold_images(self) -> Tensor:
        """Held-out images for the thresholds of a ReLU network."""
        with closing(self._held_out.batches(THRESHOLD_IMAGES)) as batches:
            return next(batches)[0]

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to continue exactly, besides the history and the best state."""
        return {
            "format": checkpoint.FORMAT,
            "version": checkpoint.VERSION,
            "recipe": asdict(self.recipe),
            "data": self._data_digest,
            "state": self.network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self.optimizer.momentum(),
        }

    def restore(self, path: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """Continue from a checkpoint; (history, best state). CheckpointError where it is of something else."""
        content = checkpoint.load(path)
        if not {"recipe", "state", "optimizer", "history", "best"} <= content.keys():
            raise CheckpointError(f"{path}: not a checkpoint; allowed: a file written while train.cifar runs")
        self._require_same(path, content)
        checkpoint.check_tensors(path, "state", content["state"], self.network.state_dict())
        self.network.load_state_dict(content["state"])
        if self._average is not None:
            checkpoint.check_tensors(path, "average", content.get("average"), self._average.state_dict())
            self._average.load_state_dict(content["average"])
        checkpoint.check_tensors(path, "optimizer", content["optimizer"], self.optimizer.expected())
        self.optimizer.load_momentum(content["optimizer"])
        history, best = content["history"], content["best"]
        if (
            not isinstance(history, list)
            or not 0 < len(history) <= self.recipe.epochs
            or not all(map(_is_entry, history, range(1, len(history) + 1)))
        ):
            raise CheckpointError(f"{path}: history has no numbers for each of 1 to {self.recipe.epochs} epochs")
        if not isinstance(best, dict) or not {"score", "epoch", "state"} <= best.keys():
            raise CheckpointError(f"{path}: best is no dictionary of score, epoch and state")
        if type(best["score"]) is not float or type(best["epoch"]) is not int or not 1 <= best["epoch"] <= len(history):
            raise CheckpointError(f"{path}: best has no score, or no epoch of 1..{len(history)}")
        checkpoint.check_tensors(path, "best", best["state"], self.result.state_dict())
        return history, best

    def _require_same(self, path: Path, content: dict[str, Any]) -> None:
        """CheckpointError where the checkpoint is of another recipe or other data."""
        if not isinstance(content["recipe"], dict):
            raise CheckpointError(f"{path}: recipe is no dictionary")
        made, asked = content["recipe"], asdict(self.recipe)
        if self.recipe.activation == "relu":  # what acts after the training alone may change
            asked |= {key: made.get(key) for key in ("induction_steps", "threshold_scale")}
        keys = dict.fromkeys([*asked, *made])
        changed = [str(key) for key in keys if isinstance(made.get(key), Tensor) or made.get(key) != asked.get(key)]
        if changed == ["epochs"] and type(made["epochs"]) is int:
            raise CheckpointError(
                f"{path}: made for {made['epochs']} epochs, over which its learning rate falls to 0; allowed: --epochs "
                f"{made['epochs']} to continue, or --init MODEL and another --out to train the trained model further"
            )
        if changed:
            raise CheckpointError(f"{path}: made with another {', '.join(changed)}; allowed: the same recipe")
        if content.get("data") != self._data_digest:
            raise CheckpointError(f"{path}: made with other images or classes; allowed: the same data")


def _is_entry(entry: object, epoch: int) -> bool:
    """Whether this may be the entry of that epoch in the history."""
    return (
        isinstance(entry, dict)
        and {"epoch", "loss", "train", "ann"} <= entry.keys()
        and all(type(key) is str and type(value) in (int, float) for key, value in entry.items())
        and all(map(math.isfinite, entry.values()))
        and entry["epoch"] == epoch
    )
