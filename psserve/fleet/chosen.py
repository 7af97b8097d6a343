"""Which modules of a zoo a fleet serves."""

from __future__ import annotations

from psserve.errors import PlanError, UnknownModule
from psserve.fleet.options import FleetOptions
from psserve.zoo import Module, Zoo


def chosen_modules(zoo: Zoo, options: FleetOptions) -> list[Module]:
    """The modules to serve, each once.

    Raises:
        UnknownModule: the options name one the zoo has not.
        PlanError: there is nothing to serve, a name stands for two, or the default module is not served.
    """
    if options.modules is None:
        modules = zoo.modules()
    else:
        chosen = [_module(zoo, name, options.where("modules")) for name in options.modules]
        modules = list({module.name: module for module in chosen}.values())
    if not modules and not options.serve_base:
        raise PlanError(f"the zoo {zoo.path} has no module; add one with `psserve add-model`, or use --serve-base")
    for module in modules:
        if options.serve_base and zoo.base.name in (module.name, *module.aliases):
            where = options.where("serve_base")
            raise PlanError(f"{where}: the module {module.name} has the base's name {zoo.base.name} already")
    _check_tables(zoo, options)
    _check_default(zoo, modules, options)
    return modules


def _module(zoo: Zoo, name: str, where: str) -> Module:
    try:
        return zoo.module(name)
    except UnknownModule as error:
        raise UnknownModule(f"{where}: {error}") from None


def _check_default(zoo: Zoo, modules: list[Module], options: FleetOptions) -> None:
    """What `auto` falls back to must be served."""
    default = options.router.default_module
    served = [name for module in modules for name in (module.name, *module.aliases)]
    if options.serve_base:
        served.append(zoo.base.name)
    if default is not None and default not in served:
        said = options.said("router.default_module", default)
        raise PlanError(f"{said}: not served (served: {', '.join(served)})")


def _check_tables(zoo: Zoo, options: FleetOptions) -> None:
    """Every [module.NAME] must speak of a module of the zoo, and no two of the same."""
    seen: dict[str, str] = {}
    for table in options.module:
        where = options.table(f"module.{table}")
        name = table if table == zoo.base.name else _module(zoo, table, where).name
        if name in seen:
            raise PlanError(f"{where} and module.{seen[name]} are both the module {name}: keep one of them")
        seen[name] = table
