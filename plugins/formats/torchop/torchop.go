// Package torchop judges operators that a program of torch calls by their names,
// whichever format the program is written in: TorchScript, exported graphs,
// ExecuTorch. Vetted are the exact names that torch registers itself and that
// compute with tensors and nothing else.
package torchop

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

// The rules that an operator can meet.
const (
	ruleFile    = "torch.op.file"
	rulePython  = "torch.op.python"
	ruleNetwork = "torch.op.network"
	ruleCustom  = "torch.op.custom"
	ruleLibrary = "torch.op.library"
	ruleUnknown = "torch.op.unknown"
)

// RulePython is the rule for what calls Python by other means than an operator.
const RulePython = rulePython

// RuleCustom is the rule for what a native library has to provide.
const RuleCustom = ruleCustom

// RuleNetwork is the rule for what calls another process.
const RuleNetwork = ruleNetwork

// Rules lists the rules that Judge may name.
func Rules() []string {
	return []string{ruleFile, rulePython, ruleNetwork, ruleCustom, ruleLibrary, ruleUnknown}
}

//go:embed operators.txt
var operatorsText string

var shipped = sync.OnceValues(func() (map[string]map[string]bool, error) { return parse(operatorsText) })

// parse reads lines of a namespace, a colon, and names.
func parse(text string) (map[string]map[string]bool, error) {
	table := make(map[string]map[string]bool)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		space, names, ok := strings.Cut(line, ":")
		if !ok || space == "" {
			return nil, fmt.Errorf("parse operators: line %q has no namespace", line)
		}
		if table[space] == nil {
			table[space] = make(map[string]bool)
		}
		for _, n := range strings.Fields(names) {
			table[space][n] = true
		}
	}
	return table, nil
}

// exact are operators that do more than compute, by their full names.
var exact = map[string]string{
	"aten::save": ruleFile, "aten::from_file": ruleFile, "aten::to_file": ruleFile, "aten::load": ruleFile, "debugprims::load_tensor": ruleFile,
	"prim::PythonOp": rulePython, "prim::IgnoredPythonOp": rulePython, "prim::CallFunction": ruleUnknown,
	"prim::rpc_async": ruleNetwork, "prim::rpc_sync": ruleNetwork, "prim::rpc_remote": ruleNetwork,
	"higher_order::triton_kernel_wrapper_mutation": ruleCustom, "higher_order::triton_kernel_wrapper_functional": ruleCustom,
	"higher_order::print": "", "higher_order::call_torchbind": ruleCustom,
	"higher_order::executorch_call_delegate": "",
}

// networks are namespaces whose operators talk to other processes.
var networks = map[string]bool{"c10d": true, "_c10d_functional": true, "_c10d_functional_autograd": true, "symm_mem": true, "rpc": true, "fsdp": true}

// libraries are namespaces of libraries that belong to torch's own project or to
// its runtimes, and are installed beside it.
var libraries = map[string]bool{
	"torchvision": true, "torchaudio": true, "torchtext": true, "fbgemm": true, "quantized_decomposed": true, "torchao": true, "prepacked": true,
	"xnnpack": true, "metal_prepack": true, "vulkan_prepack": true, "dim_order_ops": true, "executorch_prim": true, "et_vk": true, "llama": true,
	"pt2e_quant": true, "higher_order": true, "cadence": true, "cortex_m": true, "xnnpack_quant": true, "tosa": true, "coreml": true,
}

// reaching are parts of names by which an operator of any library says that it
// reaches a file or more.
var reaching = []string{"file", "save", "load_", "_load", "open", "write", "exec", "system", "shell", "download", "http", "url", "sox_io", "ffmpeg", "dlopen", "import"}

// Judge gives the rule that an operator meets, or nothing when it is vetted. The
// name is without its overload.
func Judge(space, name string) (string, error) {
	known, err := shipped()
	if err != nil {
		return "", err
	}
	if rule, ok := exact[space+"::"+name]; ok {
		return rule, nil
	}
	if known[space][name] {
		return "", nil
	}
	switch {
	case networks[space]:
		return ruleNetwork, nil
	case reaches(name):
		return ruleFile, nil
	case known[space] != nil:
		return ruleUnknown, nil
	case libraries[space]:
		return ruleLibrary, nil
	}
	return ruleCustom, nil
}

func reaches(name string) bool {
	name = strings.ToLower(name)
	for _, part := range reaching {
		if strings.Contains(name, part) {
			return true
		}
	}
	return name == "load"
}

// Class gives the rule that a native class of torch's registry meets: its own
// ones hold packed weights.
func Class(space, name string) string {
	switch space {
	case "quantized", "xnnpack", "rnn", "sparse", "mkldnn", "onednn", "profiler", "dist_rpc":
		if space == "dist_rpc" {
			return ruleNetwork
		}
		return ""
	}
	if reaches(name) || name == "Video" {
		return ruleFile
	}
	if libraries[space] {
		return ruleLibrary
	}
	return ruleCustom
}
