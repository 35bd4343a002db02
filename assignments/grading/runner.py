"""Run a student's notebook and see which checks it passes, whatever the notebook tries.

Cells run in a Jupyter kernel of the reader's environment, not the grader's, in a folder of their own. A cell that runs too long, takes too much memory or ends
its process is stopped: a new kernel runs what came before it, without the cell and without checks, and goes on after it. Output beyond a limit is dropped.
This is a guard against accidents and mischief, not against an attack on the machine: the kernel can read what its user can read.
"""

import ast
import json
import os
import secrets
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbformat import ValidationError
from nbformat.v4 import new_output, output_from_msg

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Limits:
    """seconds: of one cell; total: of all cells; memory: bytes of the kernel and its children; output: characters kept of a cell; flood: characters at which it is stopped."""

    seconds: float = 60
    total: float = 1200
    memory: int = 4 << 30
    output: int = 50_000
    flood: int = 20_000_000


@dataclass
class Result:
    """outputs: {index of a cell: list of notebook outputs}; passed: {index of a check: bool}; leaderboard: {index of a check: number}."""

    outputs: dict = field(default_factory=dict)
    passed: dict = field(default_factory=dict)
    leaderboard: dict = field(default_factory=dict)


class Stopped(Exception):
    """A cell had to be stopped; the message says why."""


def _error(name, words):
    return new_output("error", ename=name, evalue=words, traceback=[f"{name}: {words}"])


def imports(cells):
    """Names of the modules that the cells (trusted ones) import, in order."""
    found = []
    for text in cells:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [node.module]
    return sorted(set(found))


class Kernel:
    """One kernel, its limits watched. `run` returns (status, outputs) of some code or raises Stopped."""

    def __init__(self, python, folder, limits):
        self.limits, self.over = limits, threading.Event()
        specs = Path(tempfile.mkdtemp(dir=folder.parent))
        (specs / "student").mkdir()
        (specs / "student" / "kernel.json").write_text(json.dumps({
            "argv": [str(python), str(HERE / "kernel.py"), str(limits.memory), "-f", "{connection_file}"], "display_name": "student", "language": "python"}))
        self.manager = KernelManager(kernel_name="student", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(specs)]))
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "LC_ALL", "SHVC_DATA", "SYSTEMROOT")}
        environment |= {"HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                        "IPYTHONDIR": str(folder / ".ipython"), "MPLCONFIGDIR": str(folder / ".matplotlib"), "TQDM_DISABLE": "1"}
        self.manager.start_kernel(cwd=str(folder), env=environment, extra_arguments=["--HistoryManager.hist_file=:memory:", "--log-level=50"])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)
        self.process = psutil.Process(self.manager.provisioner.process.pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        """Kill the kernel when it and its children hold more memory than they may."""
        while True:
            try:
                everyone = [self.process, *self.process.children(recursive=True)]
                if sum(one.memory_info().rss for one in everyone) > self.limits.memory:
                    self.over.set()
                    for one in everyone:
                        one.kill()
            except psutil.Error:
                if not self.process.is_running():
                    return
            time.sleep(0.1)

    def run(self, code, seconds, answer=None):
        """(whether it ended well, its outputs); outputs of the MIME type `answer` may have any size."""
        request, ends = self.client.execute(code, store_history=False, allow_stdin=False), time.monotonic() + seconds
        outputs, kept, size = [], 0, 0
        while True:
            if not self.manager.is_alive():
                raise Stopped(f"it took more than {self.limits.memory >> 20} MiB of memory" if self.over.is_set() else "it ended its own process")
            if time.monotonic() > ends:
                raise Stopped(f"it ran longer than {seconds:.0f} seconds")
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except Exception:  # queue.Empty: nothing was said meanwhile
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind not in ("stream", "error", "display_data", "execute_result"):
                continue
            asked = answer is not None and answer in content.get("data", {})
            length = 0 if asked else len(json.dumps(content))
            size += length
            if size > self.limits.flood:
                raise Stopped(f"it printed more than {self.limits.flood // 1_000_000} million characters")
            if kept + length <= self.limits.output or kind == "error" or (kind != "stream" and length < 2_000_000):
                kept += length
                try:
                    outputs.append(output_from_msg(message))
                except ValidationError:  # whatever it wanted to show is not something that a notebook can hold
                    continue
            elif kept < self.limits.output:
                text = content.get("text", "")[:self.limits.output - kept]
                kept = self.limits.output
                outputs.append(new_output("stream", name=content.get("name", "stdout"), text=text + "\n[the rest of the output is left out]\n"))
        while True:
            try:
                reply = self.client.get_shell_msg(timeout=max(1.0, ends - time.monotonic()))
            except Exception as error:
                raise Stopped("it ended its own process") from error
            if reply["parent_header"].get("msg_id") == request:
                if reply["content"].get("ename") in ("MemoryError", "_ArrayMemoryError"):  # what it holds would be missing to the cells after it
                    raise Stopped(f"it took more than {self.limits.memory >> 20} MiB of memory")
                return reply["content"]["status"] == "ok", outputs

    def close(self):
        """End the kernel and whatever it started."""
        try:
            children = self.process.children(recursive=True)
        except psutil.Error:
            children = []
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        for child in children:
            try:
                child.kill()
            except psutil.Error:
                pass


PROBE = (HERE / "probe.py").read_text(encoding="utf-8")


def _probe(kernel, call, seconds):
    """(what `call`, an expression over probe.py's functions, gives in the kernel, or None if it raised; its outputs)."""
    kind = "application/x-" + secrets.token_hex(16)
    code = f"""
def _(namespace):
    import json, IPython.display
    inside = {{"get_ipython": get_ipython}}
    exec({PROBE!r}, inside)
    value = eval({call!r}, inside, {{"namespace": namespace}})
    IPython.display.publish_display_data({{{kind!r}: json.dumps([value])}})
try:
    _(globals())
finally:
    globals().pop("_", None)
"""
    well, outputs = kernel.run(code, seconds, kind)
    values = [json.loads(output.data[kind]) for output in outputs if kind in output.get("data", {})]
    return (values[0] if well and values else None), [output for output in outputs if kind not in output.get("data", {})]


@contextmanager
def _folder():
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as root:
        (Path(root) / "work").mkdir()
        yield Path(root) / "work"


def run(cells, checks, modules, python, limits=Limits()):
    """Run `cells`, {index: source}, in order; returns a Result.

    checks: {index: question}, those of the cells that are checks; modules: names of the modules that checks rely on, fingerprinted before and after.
    """
    result, stopped, began = Result(), set(), time.monotonic()
    order, position, kernel = sorted(cells), 0, None
    with _folder() as folder:
        try:
            while position < len(order):
                index = order[position]
                left = limits.total - (time.monotonic() - began)
                if left <= 0:
                    result.outputs[index] = [_error("Stopped", f"the whole notebook ran longer than {limits.total:.0f} seconds")]
                    result.passed |= {index: False} if index in checks else {}
                    position += 1
                    continue
                try:
                    if kernel is None:
                        kernel = Kernel(python, folder, limits)
                        before = _probe(kernel, f"fingerprint({modules!r})", 120)[0][0]
                        for earlier in order[:position]:
                            if earlier not in stopped and earlier not in checks:
                                kernel.run(cells[earlier], min(limits.seconds, left))
                    if index in checks:
                        _check(kernel, index, cells[index], checks[index], before, modules, min(limits.seconds, left), result)
                    else:
                        result.outputs[index] = kernel.run(cells[index], min(limits.seconds, left))[1]
                except Stopped as reason:
                    stopped.add(index)
                    result.outputs[index] = [_error("Stopped", f"{reason}; the cells after it ran without it")]
                    result.passed |= {index: False} if index in checks else {}
                    kernel.close()
                    kernel = None
                position += 1
        finally:
            if kernel is not None:
                kernel.close()
    return result


def _check(kernel, index, text, name, before, modules, seconds, result):
    """Run one check and note whether it passed."""
    result.passed[index] = False
    value, outputs = _probe(kernel, f"check({text!r}, {name!r}, namespace)", seconds)
    result.outputs[index] = outputs
    after = (_probe(kernel, f"fingerprint({modules!r})", seconds)[0] or [{}])[0]
    changed = [key for key, mark in before.items() if after.get(key) != mark]
    if changed:
        result.outputs[index] = [_error("Tampered", f"the notebook changes {', '.join(changed[:3])}, which the checks rely on: no points")]
    elif value is None and not any(output.output_type == "error" for output in outputs):
        result.outputs[index] = outputs + [_error("Stopped", "the check did not come to its end")]
    elif value is not None:
        result.passed[index] = True
        if value[0] is not None:
            result.leaderboard[index] = value[0]
