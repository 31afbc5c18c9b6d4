package torchop

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	want := map[[2]string]string{
		{"aten", "add"}: "", {"aten", "relu_"}: "", {"aten", "__is__"}: "", {"prim", "RaiseException"}: "", {"quantized", "linear"}: "",
		{"aten", "save"}: ruleFile, {"aten", "from_file"}: ruleFile, {"prim", "PythonOp"}: rulePython, {"prim", "rpc_async"}: ruleNetwork,
		{"c10d", "broadcast_"}: ruleNetwork, {"torchvision", "nms"}: ruleLibrary, {"torchvision", "write_file"}: ruleFile,
		{"mine", "add"}: ruleCustom, {"mine", "load_library"}: ruleFile, {"aten", "nothing_like_it"}: ruleUnknown, {"", ""}: ruleCustom,
	}
	got := make(map[[2]string]string)
	for k := range want {
		rule, err := Judge(k[0], k[1])
		if err != nil {
			t.Fatal(err)
		}
		got[k] = rule
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"names without a space\n", ": a\n"} {
		if table, err := parse(text); err == nil {
			t.Errorf("%q: read as %v", text, table)
		}
	}
}
