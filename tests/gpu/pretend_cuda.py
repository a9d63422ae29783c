"""A CUDA device that is not there: tensors that call themselves ``cuda:0``, with real values, on a machine without one.

What fails on a GPU fails here too: tensors of two devices in one operation (forward and backward), a CPU generator for
noise on the device, ``numpy()`` of what lies there. The device's noise has a state of its own, as on a GPU. Where the
host waits for the device (``item``, ``bool``, ``nonzero``, copies that are not ``non_blocking``), ``waits`` notes it.
"""

import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
COPIES = {aten._to_copy.default, aten.copy_.default}
GETS = {aten.index.Tensor, aten._unsafe_index.Tensor}
PUTS = {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default, aten._unsafe_index_put.default}
WAITING = {  # their result, or its shape, is needed by the host
    *(aten._local_scalar_dense.default, aten.nonzero.default, aten.bincount.default, aten.masked_select.default),
    *(aten._unique2.default, aten.unique_dim.default, aten.repeat_interleave.Tensor, aten.equal.default),
}


class PretendTensor(torch.Tensor):
    """To Python it lies on ``cuda:0``; to PyTorch's C++, autograd's engine among it, on the CPU, as ``host`` does."""

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    leaves = False  # whether Python asks for a copy on the CPU now; C++ names the CPU and means the same device

    @staticmethod
    def __new__(cls, host):
        with torch.inference_mode(host.is_inference()):  # a view of a tensor from outside of it is none of it
            return torch.Tensor._make_wrapper_subclass(
                cls,
                host.shape,
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=CPU,
            )

    def __init__(self, host):
        self.host = host

    __torch_dispatch__ = classmethod(lambda cls, func, types, args=(), kwargs=None: run(func, args, kwargs or {}))
    __torch_function__ = torch._C._disabled_torch_function_impl

    def to(self, *args, non_blocking=False, copy=False, memory_format=None, **kwargs):
        device, dtype, _, asked = torch._C._nn._parse_to(*as_device(args), **kwargs)
        memory_format = memory_format or asked
        same = dtype in (None, self.dtype) and (device is None or device.type == "cuda")
        if same and not copy and (memory_format is None or self.is_contiguous(memory_format=memory_format)):
            return self
        options = {"dtype": dtype, "non_blocking": non_blocking, "memory_format": memory_format}
        with mock.patch.object(PretendTensor, "leaves", device is not None and device.type == "cpu"):
            return aten._to_copy(self, device=device or CUDA, **options)

    cpu = lambda self, **_: self.to("cpu")  # noqa: E731
    cuda = lambda self, *_, **__: self  # noqa: E731
    get_device = lambda self: 0  # noqa: E731
    tolist = lambda self: self.cpu().tolist()  # noqa: E731
    __repr__ = lambda self: f"PretendTensor({self.host})"  # noqa: E731
    __format__ = lambda self, form: format(self.cpu(), form)  # noqa: E731

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __reduce_ex__(self, protocol):  # what is saved is read on the CPU
        return self.cpu().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        twin = PretendTensor(self.host.clone()).requires_grad_(self.requires_grad)
        return torch.nn.Parameter(twin, self.requires_grad) if isinstance(self, torch.nn.Parameter) else twin


def as_device(args):
    """What ``to(tensor)`` means: that one's device and type."""
    return (args[0].device, args[0].dtype, *args[1:]) if args and isinstance(args[0], torch.Tensor) else args


def run(func, args, kwargs, mode=None):
    """Do on the CPU what is asked of the device; ``mode`` takes notes."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(t, PretendTensor) for t in tensors)
    asked = kwargs.get("device")
    result = asked.type == "cuda" if asked is not None else there
    if func is aten.copy_.default:
        result = isinstance(args[0], PretendTensor)
    elif there and not (func is aten._to_copy.default and PretendTensor.leaves):
        result = True  # composites in C++ ask for the CPU, where they mean the device of their argument
    check(func, tensors, kwargs, result)
    if mode is not None and (there or result):
        mode.note(func, args, kwargs)
    if not (there or result):
        return func(*args, **kwargs)
    if func is aten._fused_sdp_choice.default:
        return 0  # plain products
    noisy = mode is not None and torch.Tag.nondeterministic_seeded in func.tags
    host_args, host_kwargs = tree_map_only(PretendTensor, lambda t: t.host, (args, kwargs))
    host_kwargs |= {"device": CPU} if asked is not None else {}
    with mode.noise() if noisy else nullcontext():
        output = func(*host_args, **host_kwargs)
    if not result:
        return output.clone() if isinstance(output, torch.Tensor) and func in COPIES else output
    same = {id(t.host): t for t in tensors if isinstance(t, PretendTensor)}
    return tree_map_only(torch.Tensor, lambda t: same[id(t)] if id(t) in same else PretendTensor(t), output)


def check(func, tensors, kwargs, result):
    """Raise as CUDA does."""
    generator = kwargs.get("generator")
    if generator is not None and result:
        raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
    on = [isinstance(t, PretendTensor) for t in tensors]
    if func in {*COPIES, aten._has_compatible_shallow_copy_type.default} or not any(on) or all(on):
        return
    allowed = tensors[1:-1] if func in PUTS else tensors[1:] if func in GETS else []
    wrong = [
        t
        for t, o in zip(tensors, on, strict=True)
        if not o and t.ndim and t.numel() and all(t is not a for a in allowed)
    ]
    if wrong or (not on[0] and (func._schema.is_mutable or func in GETS | PUTS)):
        found = ", ".join(f"{'cuda' if o else 'cpu'} {list(t.shape)}" for t, o in zip(tensors, on, strict=True))
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found {found}")


class PretendCuda(TorchDispatchMode):
    """Inside, ``cuda`` is a device; ``waits`` counts where in ``watched`` files the host waits for it."""

    def __init__(self, watched="/zoo/"):
        super().__init__()
        self.watched, self.waits = watched, Counter()
        self.seed(0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is aten.to:  # in inference mode it comes whole
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return run(func, args, kwargs or {}, self)

    def seed(self, seed):
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def noise(self):
        """Random numbers of the device's own."""
        host = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(host)

    def note(self, func, args, kwargs):
        if func in COPIES:
            source = args[1] if func is aten.copy_.default else args[0]
            target = args[0].device if func is aten.copy_.default else CPU if PretendTensor.leaves else CUDA
            free = kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:3] == (True,))
            waits = source.device.type != target.type and not free
        elif func in GETS | PUTS:
            indices = [t for t in args[1] if t is not None]
            waits = any(not isinstance(t, PretendTensor) or (t.dtype == torch.bool and func in GETS) for t in indices)
        else:
            waits = func in WAITING
        if not waits:
            return
        frames = [f for f in traceback.extract_stack() if f.filename != __file__]
        own = [f for f in frames if self.watched in f.filename]
        if own:
            last = [f for f in frames if "/torch/" not in f.filename][-1]
            via = (
                ""
                if last.filename == own[-1].filename
                else f", by {last.filename.split('site-packages/')[-1]}:{last.lineno}"
            )
            place = own[-1].filename.rpartition(self.watched)[2]
            self.waits[f"{place}:{own[-1].lineno} {func.__name__.split('.')[0]}{via}"] += 1


def repeat(step, times):
    for _ in range(times):
        step()


@contextmanager
def pretend_cuda(**options):
    """A machine with one GPU, as far as PyTorch and Lightning ask."""
    mode = PretendCuda(**options)

    def put(state, *_):
        mode.state = state.clone()

    properties = mock.Mock(major=9, minor=0, total_memory=80 << 30, multi_processor_count=132)
    stand_ins = {
        "_initialized": True,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "device": lambda *_: nullcontext(),
        "empty_cache": lambda: None,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_name": lambda *_: "pretended",
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: properties,
        "manual_seed": mode.seed,
        "manual_seed_all": mode.seed,
        "set_rng_state": put,
        "get_rng_state": lambda *_: mode.state.clone(),
        "get_rng_state_all": lambda: [mode.state.clone()],
        "set_rng_state_all": lambda states: put(states[0]),
        "synchronize": lambda *_: None,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
    }
    autocast = torch.autocast.__init__

    def on_cpu(self, device_type, *args, **kwargs):  # what is cast is almost the same
        autocast(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    to, attend = torch.Tensor.to, torch.nn.functional.scaled_dot_product_attention

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **rest):
        if is_causal:  # C++ would make the mask where it takes the query to be
            attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        return attend(query, key, value, attn_mask, dropout_p, **rest)

    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") makes a CPU tensor first
    torch._C._ensureCUDADeviceGuardSet()  # a guard that does nothing, where there is no driver
    with ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        for name, value in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch.Tensor, "to", lambda t, *a, **k: to(t, *as_device(a), **k)))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", lambda tensor, *_: tensor))
        stack.enter_context(mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attention))
        stack.enter_context(mock.patch.object(torch.autocast, "__init__", on_cpu))
        stack.enter_context(mock.patch("zoo.tasks.text_to_image.generators.dalle.repeat_on_gpu", repeat))  # no graphs
        stack.enter_context(mock.patch.object(torch._C, "_cuda_clearCublasWorkspaces"))
        stack.enter_context(mode)
        yield mode
