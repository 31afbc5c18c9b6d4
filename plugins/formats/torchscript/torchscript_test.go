package torchscript

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheck(t *testing.T) {
	const def = "def f(x: Tensor) -> Tensor:\n  "
	tests := []struct {
		name, src string
		want      []string // rule and what
		classes   []string
		err       error
	}{
		{"empty", "", nil, nil, nil},
		{"class", "class M(Module):\n  w : Tensor\n  def forward(self, x: Tensor) -> Tensor:\n    return torch.add(x, self.w)\n", nil, []string{"M"}, nil},
		{"two classes", "class A(NamedTuple):\n  x : int\nclass B(Enum):\n  y = 1\n", nil, []string{"A", "B"}, nil},
		{"control flow", def + "if bool(x):\n    y = x\n  else:\n    y = torch.neg(x)\n  for i in range(3):\n    y = torch.add_(y, i)\n  while True:\n    break\n  return y\n", nil, nil, nil},
		{"literals", def + "return torch.tensor([1, -2.5e-3, 0x10], \"s\", {\"a\": (1,)}, not True, 1 if True else 2)\n", nil, nil, nil},
		{"operator", def + "return ops.mine.op(x)\n", []string{"torch.op.custom mine::op"}, nil, nil},
		{"operator of aten by the long way", def + "return ops.aten.save(x, \"f\")\n", []string{"torch.op.file aten::save"}, nil, nil},
		{"operator twice", def + "return ops.mine.op(ops.mine.op(x))\n", []string{"torch.op.custom mine::op"}, nil, nil},
		{"operator over lines", def + "return ops.mine.op(\n  x,\n)\n", []string{"torch.op.custom mine::op"}, nil, nil},
		{"in a default", "def f(x: int=ops.mine.op(1)) -> int:\n  return x\n", []string{"torch.op.custom mine::op"}, nil, nil},
		{"in an annotation", def + "y = annotate(List[int], ops.mine.op(x))\n  return y\n", []string{"torch.op.custom mine::op"}, nil, nil},
		{"in a comment", def + "return x # ops.mine.op(x)\n", nil, nil, nil},
		{"in a string", def + "return torch.warn(\"ops.mine.op(x)\", 2)\n", nil, nil, nil},
		{"Python", def + "return ^inert(1)(x)\n", []string{"torch.op.python inert"}, nil, nil},
		{"torch alone", def + "y = torch\n  return y\n", []string{"torch.op.unknown torch"}, nil, nil},
		{"unknown function", def + "return exec2(x)\n", []string{"torch.op.unknown exec2"}, nil, nil},
		{"function of its own", "def g(x: int) -> int:\n  return x\n" + def + "return g(x)\n", nil, nil, nil},
		{"native class", def + "return __torch__.torch.classes.mine.C(x)\n", []string{"torch.op.custom __torch__.torch.classes.mine.C"}, nil, nil},
		{"import", "import os\n", nil, nil, errSource},
		{"from", "from os import system\n", nil, nil, errSource},
		{"try", "try:\n  x = 1\nexcept:\n  x = 2\n", nil, nil, errSource},
		{"lambda", "f = lambda x: x\n", nil, nil, errSource},
		{"open bracket", "x = (1\n", nil, nil, errSource},
		{"open string", "x = \"a\n", nil, nil, errSource},
		{"bad indentation", "if True:\n    x = 1\n  y = 2\n", nil, nil, errSource},
		{"too deep", "x = " + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000) + "\n", nil, nil, errLimit},
	}
	for _, tt := range tests {
		s, err := check(tt.src)
		var got []string
		for _, p := range s.problems {
			got = append(got, p.rule+" "+p.what)
		}
		if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		if tt.err == nil {
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("%s: problems (-want +got):\n%s", tt.name, d)
			}
			if d := cmp.Diff(tt.classes, s.classes); d != "" {
				t.Errorf("%s: classes (-want +got):\n%s", tt.name, d)
			}
		}
	}
}

// FuzzCheck puts an operator of nobody behind what is read whole: it is found,
// whatever stands before it.
func FuzzCheck(f *testing.F) {
	f.Add("class M(Module):\n  w : Tensor\n  def forward(self, x: Tensor) -> Tensor:\n    _0 = torch.add(x, self.w, alpha=1)\n    return _0\n")
	f.Add("def f(x: int=1) -> int:\n  if x is not None:\n    y = ^p(1)(x)\n  else:\n    y = [1, 2][0]\n  return y\n")
	f.Add("x = \"\\\"\" 'b' # c\nfor i in range(3):\n  with a as b:\n    pass\n")
	f.Fuzz(func(t *testing.T, src string) {
		if _, err := check(src); err != nil || strings.Contains(src, "ops") {
			return
		}
		s, err := check(src + "\nzz = ops.nobodys.own(1)\n")
		if err != nil {
			return // what went before is open
		}
		for _, p := range s.problems {
			if p.what == "nobodys::own" {
				return
			}
		}
		t.Errorf("%q hides what follows", src)
	})
}
