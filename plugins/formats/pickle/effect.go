package pickle

import "strings"

// call is a call of an import: the arguments that are known.
type call struct {
	callee value
	args   []value
	depth  int
	how    Use
}

// effect is what a known function does, as far as later opcodes build on it. It
// reports false when the result is an ordinary one.
type effect func(m *machine, c call) (value, bool)

// effectOf gives the effect of a function by its canonical name.
func effectOf(name string) effect {
	switch name {
	case "importlib.import_module", "builtins.__import__", "importlib.__import__", "importlib._gcd_import", "pydoc.safeimport", "imp.load_module":
		return importModule
	case "builtins.getattr", "builtins.object.__getattribute__", "builtins.type.__getattribute__", "inspect.getattr_static":
		return func(m *machine, c call) (value, bool) {
			if len(c.args) < 2 {
				return 0, false
			}
			return m.attribute(c.args[0], c.args[1])
		}
	case "operator.getitem", "operator.__getitem__", "builtins.dict.__getitem__", "builtins.dict.get":
		return func(m *machine, c call) (value, bool) {
			if len(c.args) < 2 {
				return 0, false
			}
			return m.item(c.args[0], c.args[1])
		}
	case "builtins.vars":
		return func(_ *machine, c call) (value, bool) {
			return first(c.args), first(c.args).kind() == kindModule
		}
	case "functools.reduce", "builtins.map", "builtins.filter", "itertools.starmap", "builtins.apply", "itertools.accumulate", "operator.call",
		"itertools.takewhile", "itertools.dropwhile", "itertools.filterfalse", "atexit.register", "copyreg.constructor", "_thread.start_new_thread":
		return callsFirst
	case "copyreg.pickle":
		return func(m *machine, c call) (value, bool) {
			for _, v := range c.args[min(1, len(c.args)):] {
				m.invokeFunction(v, c.depth)
			}
			return 0, false
		}
	case "collections.defaultdict":
		return callsFirst
	case "copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__":
		return reconstruct
	case "copyreg.add_extension":
		return addExtension
	case "torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type":
		return rebuildFromType
	case bitGenerator, "numpy.random._pickle.__generator_ctor", "numpy.random._pickle.__randomstate_ctor":
		return construct
	case "numpy.dtype":
		return keepType
	}
	if makers[name] {
		return reconstruct
	}
	return resolverOf(name)
}

// makers are functions that make an instance of their first argument.
var makers = map[string]bool{
	"numpy.random.bit_generator.__pyx_unpickle_SeedSequence": true, "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": true,
	"pandas.core.indexes.base._new_Index": true, "pandas.core.indexes.interval._new_IntervalIndex": true,
	"pandas.core.indexes.timedeltas._new_TimedeltaIndex": true, "pandas.core.indexes.datetimes._new_DatetimeIndex": true,
	"pandas.core.indexes.period._new_PeriodIndex": true, "sklearn.metrics._dist_metrics.newObj": true,
	"sklearn.neighbors._kd_tree.newObj": true, "sklearn.neighbors._ball_tree.newObj": true,
}

// construct is the effect of numpy's constructors of generators: the first
// argument is called when it is a class, any other one in any case.
func construct(m *machine, c call) (value, bool) {
	for i, v := range c.args {
		if i > 0 && v.kind() == kindGlobal && m.globals[v.index()].canonical == bitGenerator {
			// It is called with the first argument.
			v = first(c.args)
		}
		if v.kind() == kindGlobal || i > 0 && v != first(c.args) {
			m.invokeFunction(v, c.depth)
		}
	}
	return 0, false
}

// bitGenerator is numpy's constructor that its other constructors are given.
const bitGenerator = "numpy.random._pickle.__bit_generator_ctor"

// resolverOf is the rest: functions that turn a path into what it names.
func resolverOf(name string) effect {
	switch name {
	case "pkgutil.resolve_name", "pydoc.locate", "logging.config._resolve", "hydra.utils.get_object", "hydra.utils.get_method", "hydra.utils.get_class",
		"hydra._internal.utils._locate", "django.utils.module_loading.import_string", "werkzeug.utils.import_string", "unittest.mock._importer":
		return resolvePath
	case "numpy._core._ufunc_reconstruct", "numpy._core.multiarray._ufunc_reconstruct", "numpy._core._DType_reconstruct":
		return func(m *machine, c call) (value, bool) {
			if len(c.args) != 2 {
				return 0, false
			}
			mod, ok := m.word(c.args[0])
			nam, ok2 := m.word(c.args[1])
			if !ok || !ok2 {
				return 0, false
			}
			return m.derived(mod, nam)
		}
	}
	return nil
}

func first(args []value) value {
	if len(args) == 0 {
		return 0
	}
	return args[0]
}

// word is a text that is written or can be computed, no longer than a name.
func (m *machine) word(v value) (string, bool) {
	c, ok := m.constant(v, 0)
	return string(c.s), ok && c.kind == isText && len(c.s) <= maxLine
}

// maxModules bounds the modules that calls import by name.
const maxModules = maxImports

func importModule(m *machine, c call) (value, bool) {
	name, ok := m.word(first(c.args))
	if !ok {
		return 0, false
	}
	return m.module(name)
}

func (m *machine) module(name string) (value, bool) {
	if len(m.modules) >= maxModules {
		return 0, false
	}
	m.modules = append(m.modules, name)
	return moduleValue(len(m.modules) - 1), true
}

// attribute is what an attribute of a module or of an import is called.
func (m *machine) attribute(of, name value) (value, bool) {
	attr, ok := m.word(name)
	if !ok {
		return 0, false
	}
	return m.path(of, attr)
}

func (m *machine) path(of value, attr string) (value, bool) {
	switch of.kind() {
	case kindModule:
		if attr == "__dict__" {
			return of, true
		}
		return m.derived(m.modules[of.index()], attr)
	case kindGlobal:
		g := m.globals[of.index()]
		if attr == "__call__" {
			return of, true
		}
		return m.derived(g.module, g.name+"."+attr)
	}
	return 0, false
}

// item is what an item of sys.modules or of a module's namespace is.
func (m *machine) item(of, key value) (value, bool) {
	name, ok := m.word(key)
	if !ok {
		return 0, false
	}
	if of.kind() == kindModule {
		return m.derived(m.modules[of.index()], name)
	}
	if of.kind() == kindGlobal {
		g := m.globals[of.index()]
		if g.canonical == "sys.modules" || strings.HasSuffix(g.name, "sys.modules") {
			return m.module(name)
		}
		if path, ok := strings.CutSuffix(g.name, ".__dict__"); ok {
			return m.derived(g.module, path+"."+name)
		}
		if strings.HasSuffix(g.name, "__builtins__") {
			return m.derived("builtins", name)
		}
	}
	return 0, false
}

// callsFirst is the effect of what calls its first argument, now or later.
func callsFirst(m *machine, c call) (value, bool) {
	m.invokeFunction(first(c.args), c.depth)
	return 0, false
}

// invokeFunction notes the call of an argument that is a function, with
// arguments that are not known. A value that calls nothing is no function.
func (m *machine) invokeFunction(f value, depth int) {
	switch f.kind() {
	case kindGlobal, kindResult, kindUnknown, kindPersistent:
		m.invoke(f, useCall, unknown, depth+1)
	}
}

// reconstruct is copyreg's helpers: they make an instance of the first argument.
func reconstruct(m *machine, c call) (value, bool) {
	class := first(c.args)
	if class.kind() != kindGlobal {
		if class.kind() != kindAbsent {
			return m.invoke(class, useNew, unknown, c.depth+1), true
		}
		return 0, false
	}
	m.use(class, useNew, emptyTuple)
	if m.globals[c.callee.index()].canonical == "copyreg._reconstructor" && len(c.args) > 1 {
		base := c.args[1]
		if base.kind() != kindGlobal || m.globals[base.index()].canonical != "builtins.object" {
			// The base's own __init__ is called, with the state.
			m.invokeFunction(base, c.depth)
		}
	}
	return m.nodes.result(class.index(), class, unknown), true
}

func addExtension(m *machine, c call) (value, bool) {
	if len(c.args) == 3 {
		if code, ok := m.integer(c.args[2]); ok {
			m.registerPair(code, c.args[0], c.args[1])
		}
	}
	return 0, false
}

// rebuildFromType calls its first argument with what its third holds.
func rebuildFromType(m *machine, c call) (value, bool) {
	if len(c.args) < 3 {
		return 0, false
	}
	m.invoke(c.args[0], useCall, c.args[2], c.depth+1)
	return 0, false
}

// resolvePath takes "a.b:c.d", or "a.b.c", whose last part is the name.
func resolvePath(m *machine, c call) (value, bool) {
	path, ok := m.word(first(c.args))
	if !ok {
		return 0, false
	}
	if module, name, ok := strings.Cut(path, ":"); ok {
		if name == "" {
			return m.module(module)
		}
		return m.derived(module, name)
	}
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return m.module(path)
	}
	return m.derived(path[:i], path[i+1:])
}

// chain follows the call of what attrgetter, methodcaller, itemgetter, partial
// or another call has returned.
func (m *machine) chain(callee, args value, depth int) (value, bool) {
	n := m.nodes.get(callee)
	if n == nil {
		return 0, false
	}
	if n.callee.kind() != kindGlobal {
		return 0, false
	}
	made, given := m.argumentsOf(first(n.known())), m.argumentsOf(args)
	switch m.globals[n.callee.index()].canonical {
	case "operator.attrgetter":
		if len(made) > 0 && len(given) > 0 {
			return m.attribute(given[0], made[0])
		}
	case "operator.itemgetter":
		if len(made) > 0 && len(given) > 0 {
			return m.item(given[0], made[0])
		}
	case "operator.methodcaller":
		if len(made) > 0 && len(given) > 0 {
			if f, ok := m.attribute(given[0], made[0]); ok {
				return m.invoke(f, useCall, m.nodes.container(nodeTuple, made[1:]), depth+1), true
			}
		}
	case "functools.partial":
		if len(made) > 0 {
			all := append(append([]value(nil), made[1:]...), given...)
			return m.invoke(made[0], useCall, m.nodes.container(nodeTuple, all), depth+1), true
		}
	}
	return 0, false
}
