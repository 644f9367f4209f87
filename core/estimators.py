"""Find out from source text whether an estimator and its parameters exist: importing it takes seconds."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from config import Model, Task, UserError, known

DEFAULT: dict[Task, str] = {
    "binary": "sklearn.ensemble.HistGradientBoostingClassifier",
    "multiclass": "sklearn.ensemble.HistGradientBoostingClassifier",
    "regression": "sklearn.ensemble.HistGradientBoostingRegressor",
}
"""What is fitted where no estimator is named."""


def check_estimator(model: Model) -> None:
    """Refuse a dotted path or a parameter that is not there.

    What the text cannot tell (compiled modules, names made at run time) passes here and is checked when the
    estimator is built.
    """
    module, _, name = (model.estimator or DEFAULT["binary"]).rpartition(".")
    file = _file(module)
    if file is None:
        raise UserError(f"model.estimator: no module '{module}' for '{model.estimator}'")
    found = _find(file, module, name)
    if found is None:
        names = {bound for node in _tree(file).body for bound in _bound(node)}
        if names and not names & {name, "*", "__getattr__"}:  # with these, a name can come from anywhere
            classes = [bound for bound in names if bound[:1].isupper()]
            raise UserError(f"model.estimator: no '{name}'; {known(module, classes, name)}")
        return
    parameters = _parameters(found)
    if model.estimator is None and parameters is not None:  # the task, which only the rows tell, decides which it is
        other = _find(file, module, DEFAULT["regression"].rpartition(".")[2])
        parameters += (other and _parameters(other)) or []
    for key in model.params:
        if parameters is not None and key not in parameters:
            raise UserError(f"model.params: no '{key}'; {known(name, parameters, key)}")


def _find(file: Path, module: str, name: str) -> ast.ClassDef | None:
    """Return the class a module binds to a name, following its imports."""
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and name in _bound(node):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            if (there := _file(source)) is not None:
                return _find(there, source, original)
    return None


def _parameters(node: ast.ClassDef) -> list[str] | None:
    """Return the constructor's parameters, or None where it is inherited or takes anything."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__" and item.args.kwarg is None:
            return [argument.arg for argument in (*item.args.args[1:], *item.args.kwonlyargs)]
    return None


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _file(module: str) -> Path | None:
    """Return a module's source file without importing its packages."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module without a spec, such as __main__
        return None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    for part in rest:
        folder = file.parent
        file = folder / part / "__init__.py" if (folder / part).is_dir() else folder / f"{part}.py"
    return file if file.suffix == ".py" and file.is_file() else None
