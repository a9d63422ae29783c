"""``python -m zoo`` in a process forked from one that has imported PyTorch already: in two seconds instead of seven.

It has a folder, an environment, signals and an exit status of its own, and so have the other processes of a DDP
training. They share with each other the imported modules and the seed of Python's hashes.
"""

import multiprocessing
import os
import pickle
import runpy
import signal
import subprocess
import sys
from types import SimpleNamespace

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "lightning.pytorch",
        "timm",
        "wandb",
        "zoo.cli.train",
        "zoo.models.image",
        "zoo.models.text",
        "zoo.tasks.retrieval.task",
        "zoo.tasks.text_to_image.task",
        "zoo.tasks.image_tokenizer.task",
        "zoo.tasks.captioning.task",
    ]
)


def run(words, *, processes, cwd, env, outputs, timeout):
    """The exit status of ``python -m zoo WORDS``; what it prints goes to the files ``outputs``, out and err.

    ``processes`` is how many there will be where it starts others for DDP.
    """
    process = context.Process(target=_run, args=(words, processes, str(cwd), env, [str(path) for path in outputs]))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(words, timeout)
    return process.exitcode


def _run(words, processes, cwd, env, outputs):
    multiprocessing.set_start_method(None, force=True)  # loaders' workers are forked, as where nothing is said
    for number, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)

    from lightning.pytorch.strategies.launchers import subprocess_script

    others = []

    def popen(command, *, env, cwd):
        return others.pop(0).begin(command, env) if others else subprocess.Popen(command, env=env, cwd=cwd)

    subprocess_script.subprocess = SimpleNamespace(Popen=popen)
    for _ in range(processes - 1):
        others.append(_Other())
        if not others[-1].pid:
            words, env = others[-1].wait([other.pipe for other in others[:-1]])
            break
    os.environ.clear()
    os.environ.update(env)
    sys.modules["torch"].set_num_threads(int(env["OMP_NUM_THREADS"]))  # read when it was imported, by the server
    sys.argv = ["zoo", *words]
    runpy.run_module("zoo", run_name="__main__", alter_sys=True)


class _Other:
    """A process of DDP that is forked before anything has run, and begins when Lightning would start it."""

    def __init__(self):
        self.returncode = None
        reading, self.pipe = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(reading)
        else:
            os.close(self.pipe)
            self.pipe = reading

    def wait(self, pipes):
        """In the process itself: its words and environment; it ends where none ever come."""
        for pipe in pipes:
            os.close(pipe)
        with os.fdopen(self.pipe, "rb") as file:
            received = file.read()
        if not received:
            os._exit(0)
        return pickle.loads(received)

    def begin(self, command, env):
        with os.fdopen(self.pipe, "wb") as file:
            file.write(pickle.dumps((command[3:], env)))  # behind python -m zoo
        return self

    # what Lightning asks of a subprocess

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)
