package corpus

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

const ruleTreeIndex, ruleTreeMalformed, ruleTreeTwice = "tree.index", "tree.malformed", "tree.key.duplicate"

// treeFiles are the models of XGBoost, LightGBM and CatBoost.
func treeFiles() []ModelFile {
	return slices.Concat(xgboostFiles(), lightgbmFiles(), catboostFiles(), skopsFiles(), msgpackFiles())
}

// xgbTree is a tree of three nodes in JSON.
func xgbTree(left, nodes string) string {
	return `{"base_weights":[0,1,2],"default_left":[0,0,0],"id":0,"left_children":` + left + `,"parents":[2147483647,0,0],"right_children":[2,-1,-1],` +
		`"split_conditions":[0.5,1,2],"split_indices":[0,0,0],"split_type":[0,0,0],"tree_param":{"num_nodes":"` + nodes + `"}}`
}

func xgbJSON(trees string) string {
	return `{"learner":{"gradient_booster":{"model":{"trees":[` + trees + `]}}},"version":[3,2,0]}`
}

// ubjKey is a key or a text's body in UBJSON.
func ubjKey(s string) string { return "L" + be64(len(s)) + s }

func ubjInts(n ...int) string {
	var s strings.Builder
	s.WriteString("[$l#L" + be64(len(n)))
	for _, i := range n {
		s.WriteString(be32(i))
	}
	return s.String()
}

func xgbUBJ(nodes string, left ...int) string {
	tree := "{" + ubjKey("left_children") + ubjInts(left...) + ubjKey("right_children") + ubjInts(2, -1, -1) + ubjKey("parents") + ubjInts(-1, 0, 0) +
		ubjKey("split_indices") + ubjInts(0, 0, 0) + ubjKey("split_type") + "[$U#L" + be64(3) + "\x00\x00\x00" + ubjKey("default_left") + "[$U#L" + be64(3) + "\x00\x00\x00" +
		ubjKey("split_conditions") + "[$d#L" + be64(3) + strings.Repeat("\x00", 12) + ubjKey("tree_param") + "{" + ubjKey("num_nodes") + "S" + ubjKey(nodes) + "}}"
	return "{" + ubjKey("learner") + "{" + ubjKey("gradient_booster") + "{" + ubjKey("model") + "{" + ubjKey("trees") + "[#L" + be64(1) + tree + "}}}" + ubjKey("version") + ubjInts(3, 2, 0) + "}"
}

func xgboostFiles() []ModelFile {
	const text, binary = "xgboost-json", "xgboost-ubjson"
	good := xgbUBJ("3", 1, -1, -1)
	return []ModelFile{
		set(predicate.Pass, text, "xgboost: json", xgbJSON(xgbTree("[1,-1,-1]", "3"))),
		set(predicate.Pass, binary, "xgboost: ubjson", good),
		set(predicate.Fail, text, "xgboost: json, a child outside", xgbJSON(xgbTree("[9,-1,-1]", "3")), ruleTreeIndex),
		set(predicate.Fail, text, "xgboost: json, more nodes than there are", xgbJSON(xgbTree("[1,-1,-1]", "300")), ruleTreeIndex),
		set(predicate.Warn, text, "xgboost: json, a key twice", `{"learner":{},"learner":{},"version":[3,2,0]}`, ruleTreeTwice),
		gap(set(predicate.Warn, text, "xgboost: json, cut short", xgbJSON(xgbTree("[1,-1,-1]", "3"))[:200], ruleTreeMalformed)),
		set(predicate.Fail, binary, "xgboost: ubjson, a child outside", xgbUBJ("3", 1, 1<<20, -1), ruleTreeIndex),
		set(predicate.Fail, binary, "xgboost: ubjson, a child below", xgbUBJ("3", 1, -9, -1), ruleTreeIndex),
		set(predicate.Fail, binary, "xgboost: ubjson, pickle behind", good+payload(), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, binary, "xgboost: ubjson, a length that lies", strings.Replace(good, "[$d#L"+be64(3), "[$d#L"+be64(1<<40), 1), ruleTreeMalformed)),
		gap(set(predicate.Warn, binary, "xgboost: ubjson, nested too deep", "{"+ubjKey("learner")+strings.Repeat("[", 5000), "model.limit")),
		gap(set(predicate.Warn, binary, "xgboost: ubjson, a million of nothing", "{"+ubjKey("learner")+"[$Z#L"+be64(1<<20)+strings.Repeat("Z", 99), ruleTreeMalformed)),
		gap(set(predicate.Error, "xgboost-binary", "xgboost: binary", "binf"+strings.Repeat("\x00", 200))),
	}
}

func lightgbmFiles() []ModelFile {
	const id = "lightgbm"
	of := func(left string, sizes bool, tail string) string {
		tree := "Tree=0\nnum_leaves=3\nnum_cat=0\nsplit_feature=0 1\nsplit_gain=1 1\nthreshold=0.5 1.5\ndecision_type=2 2\nleft_child=" + left +
			"\nright_child=-2 -3\nleaf_value=0.1 0.2 0.3\nis_linear=0\nshrinkage=1\n\n\n"
		n := len(tree)
		if !sizes {
			n--
		}
		tree0 := "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\nobjective=regression\nfeature_names=a b\nfeature_infos=[0:1] [0:1]\ntree_sizes="
		return tree0 + decimal(n) + " " + decimal(n) + "\n\n" + tree + strings.Replace(tree, "Tree=0", "Tree=1", 1) + "end of trees\n\nfeature_importances:\na=1\nb=1\n\nparameters:\n[boosting: gbdt]\n\nend of parameters\n\npandas_categorical:" + tail
	}
	return []ModelFile{
		set(predicate.Pass, id, "lightgbm: plain", of("1 -1", true, "null\n")),
		set(predicate.Pass, id, "lightgbm: categories of pandas", of("1 -1", true, "[[\"x\", \"y\"]]\n")),
		gap(set(predicate.Fail, id, "lightgbm: a child outside", of("7 -1", true, "null\n"), ruleTreeIndex)),
		gap(set(predicate.Fail, id, "lightgbm: a leaf outside", of("1 -9", true, "null\n"), ruleTreeIndex)),
		gap(set(predicate.Fail, id, "lightgbm: a child too many", of("1 -1 -1", true, "null\n"), ruleTreeIndex)),
		gap(set(predicate.Fail, id, "lightgbm: sizes that lead elsewhere", of("1 -1", false, "null\n"), ruleTreeIndex)),
		gap(set(predicate.Warn, id, "lightgbm: categories that are a program", of("1 -1", true, "__import__('os')\n"), ruleTreeMalformed)),
		gap(set(predicate.Warn, id, "lightgbm: cut short", of("1 -1", true, "")[:260], ruleTreeMalformed)),
	}
}

// cbm is a model of CatBoost whose trees are an empty table, or the tables given.
func cbm(core, behind string) string { return "CBM1" + le32(len(core)) + core + behind }

func catboostFiles() []ModelFile {
	const id = "catboost"
	// A root without fields, its layout before it.
	core := "\x0c\x00\x00\x00\x00\x00\x00\x00\x04\x00\x04\x00\x04\x00\x00\x00"
	return []ModelFile{
		set(predicate.Pass, id, "catboost: empty trees", cbm(core, "")),
		set(predicate.Fail, id, "catboost: pickle behind", cbm(core, payload()), ruleHidden, ruleDangerous),
		gap(set(predicate.Warn, id, "catboost: a root outside", cbm("\xff"+core[1:], ""), ruleTreeMalformed)),
		gap(set(predicate.Warn, id, "catboost: longer than the file", "CBM1"+le32(1<<30)+core, ruleTreeMalformed)),
	}
}

func skopsFiles() []ModelFile {
	const id = "json"
	node := func(loader, module, class, more string) string {
		return `{"__class__":` + inJSON(class) + `,"__module__":` + inJSON(module) + `,"__loader__":` + inJSON(loader) + more + `}`
	}
	schema := func(n string) string { return n[:len(n)-1] + `,"protocol":2,"_skops_version":"0.16.0"}` }
	const confused, dangerous, unknown = "skops.node.confused", "skops.reference.dangerous", "skops.reference.unknown"
	attrs := `,"attrs":` + node("TupleNode", "builtins", "tuple", `,"content":[]`)
	return []ModelFile{
		set(predicate.Pass, id, "skops: a dict", schema(node("DictNode", "builtins", "dict", `,"content":{},"key_types":`+node("ListNode", "builtins", "list", `,"content":[]`)))),
		set(predicate.Pass, id, "skops: an estimator", schema(node("ObjectNode", "sklearn.linear_model._base", "LinearRegression", `,"content":null`))),
		set(predicate.Fail, id, "skops: a function of the system", schema(node("FunctionNode", "os", "system", "")), dangerous),
		set(predicate.Fail, id, "skops: a type that runs programs", schema(node("TypeNode", "subprocess", "Popen", "")), dangerous),
		set(predicate.Warn, id, "skops: a class of nobody", schema(node("ObjectNode", "mine.models", "Model", `,"content":null`)), unknown),
		set(predicate.Fail, id, "skops: an operator that calls", schema(node("OperatorFuncNode", "operator", "call", attrs)), confused, dangerous),
		set(predicate.Fail, id, "skops: an operator that is shown as another", schema(node("OperatorFuncNode", "sklearn.linear_model._base", "methodcaller", attrs)), confused),
		set(predicate.Fail, id, "skops: a method reached through attributes", schema(node("MethodNode", "builtins", "dict", `,"content":{"func":"__init__.__globals__","obj":`+node("DictNode", "builtins", "dict", `,"content":{}`)+`}`)), confused),
		set(predicate.Fail, id, "skops: a method of another object", schema(node("MethodNode", "builtins", "dict", `,"content":{"func":"update","obj":`+node("ObjectNode", "sklearn.linear_model._base", "LinearRegression", `,"content":null`)+`}`)), confused),
	}
}

// packed is a text in MessagePack; array a value of Flax's extension.
func packed(s string) string { return "\xd9" + string(rune(len(s))) + s }

func packedArray(kind string, dim int, data string) string {
	inner := "\x93\x91" + string([]byte{byte(dim)}) + packed(kind) + "\xc6" + be32(len(data)) + data
	return "\xc9" + be32(len(inner)) + "\x01" + inner
}

func msgpackFiles() []ModelFile {
	const id, bad, object = "msgpack", "msgpack.malformed", "msgpack.array.object"
	one := func(value string) string { return "\x81" + packed("params") + "\x81" + packed("kernel") + value }
	good := one(packedArray("float32", 2, floats(2)))
	return []ModelFile{
		set(predicate.Pass, id, "msgpack: plain", good),
		set(predicate.Pass, id, "msgpack: in chunks", one("\x83"+packed("__msgpack_chunked_array__")+"\xc3"+packed("shape")+"\x81"+packed("0")+"\x02"+packed("chunks")+"\x81"+packed("0")+packedArray("bfloat16", 4, floats(2)))),
		set(predicate.Fail, id, "msgpack: an array of objects", one(packedArray("object", 1, floats(2))), object),
		set(predicate.Fail, id, "msgpack: a pickle of an array", "\x84"+packed("nd")+"\xc3"+packed("type")+packed("|O")+packed("kind")+"\xa1O"+packed("data")+"\xc6"+be32(len(payload()))+payload(), object, ruleDangerous),
		set(predicate.Fail, id, "msgpack: pickle behind", good+payload(), ruleHidden, ruleDangerous),
		set(predicate.Warn, id, "msgpack: a name twice", "\x82"+packed("params")+"\x01"+packed("params")+"\x02", "msgpack.key.duplicate"),
		gap(set(predicate.Warn, id, "msgpack: an extension of nobody", one("\xc7\x04\x2aabcd"), "msgpack.extension.unknown")),
		gap(set(predicate.Warn, id, "msgpack: a shape that does not fit", one(packedArray("float32", 9, floats(2))), bad)),
		gap(set(predicate.Warn, id, "msgpack: a length that lies", "\x81"+packed("params")+"\xdf\xff\xff\xff\xff"+packed("x"), bad)),
		gap(set(predicate.Warn, id, "msgpack: nested too deep", "\x81"+packed("params")+strings.Repeat("\x91", 5000), "model.limit")),
	}
}
