"""What a grader sends to a student's kernel around a check. The text of this file is run there; nothing of it stays in the student's namespace.

A check must not be passed by changing what it uses. So it runs in a copy of the namespace without the names that hide Python's own, and a fingerprint of
the modules it imports, taken before the first cell ran, is compared with one taken after it.
"""


def fingerprint(modules):
    """{"module.name": what it was}: functions, classes (with their methods) and modules of each named module, and IPython's hooks."""
    import builtins
    import importlib
    import types

    def mark(value):
        code = getattr(value, "__code__", None)
        inside = (id(code), repr(getattr(value, "__defaults__", None))) if isinstance(code, types.CodeType) else ()
        return hash((id(value), *inside))

    seen = {}
    for name in ("builtins", *modules):
        module = builtins if name == "builtins" else importlib.import_module(name)
        for key, value in list(vars(module).items()):
            if f"{name}.{key}" in ("builtins.input", "torch.manual_seed"):  # Jupyter gives every cell its own; torch wraps its own when it first trains
                continue
            if callable(value) or isinstance(value, types.ModuleType):
                seen[f"{name}.{key}"] = mark(value)
            if isinstance(value, type) and name.startswith("shvc_lib"):
                seen |= {f"{name}.{key}.{method}": mark(part) for method, part in list(vars(value).items()) if callable(part)}
    shell = get_ipython()  # noqa: F821  (the kernel's)
    seen["IPython's hooks"] = hash((len(shell.ast_transformers), len(shell.input_transformers_cleanup), len(shell.input_transformers_post),
                                    len(shell.custom_exceptions), id(type(shell).run_cell), "run_cell" in vars(shell), len(shell.events.callbacks["pre_run_cell"])))
    return seen


def check(text, name, namespace):
    """Run a check in a copy of the namespace; returns what it left in `leaderboard`, a number, or None."""
    import builtins
    import linecache

    file = f"<check of {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    inside = {key: value for key, value in namespace.items() if key.startswith("__") or not hasattr(builtins, key)}
    exec(compile(text, file, "exec"), inside)  # noqa: S102
    value = inside.get("leaderboard") if "leaderboard" not in namespace or inside["leaderboard"] is not namespace["leaderboard"] else None
    return None if value is None else float(value)
