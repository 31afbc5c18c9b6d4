package tensor

import (
	"math"
	"testing"
)

func TestItems(t *testing.T) {
	tests := []struct {
		dims []uint64
		want int64
		ok   bool
	}{
		{nil, 1, true}, {[]uint64{2, 3}, 6, true}, {[]uint64{0, 5}, 0, true}, {[]uint64{math.MaxInt64}, math.MaxInt64, true},
		{[]uint64{1 << 32, 1 << 32}, 0, false}, {[]uint64{1 << 63}, 0, false}, {[]uint64{0, 1 << 40, 1 << 40}, 0, false},
		{[]uint64{1 << 32, 1 << 31}, 0, false}, {[]uint64{1 << 31, 1 << 31}, 1 << 62, true},
	}
	for _, tt := range tests {
		if got, ok := Items(tt.dims); got != tt.want || ok != tt.ok {
			t.Errorf("%v: %d, %v", tt.dims, got, ok)
		}
	}
}

func TestArithmetic(t *testing.T) {
	if n, ok := Times(1<<31, 1<<32); ok {
		t.Errorf("2^31 × 2^32 = %d", n)
	}
	if n, ok := Times(-1, 1); ok {
		t.Errorf("-1 × 1 = %d", n)
	}
	if n, ok := Add(math.MaxInt64, 1); ok {
		t.Errorf("max + 1 = %d", n)
	}
	if n, ok := Add(math.MaxInt64-1, 1); !ok || n != math.MaxInt64 {
		t.Errorf("max - 1 + 1 = %d, %v", n, ok)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"model.layers.0.weight": "", "blk.0.attn_q": "", "encoder/layer/kernel:0": "", "größe": "", "a..b": "", "": "",
		"../../etc/passwd": RulePath, `a\..\b`: RulePath, "a/..": RulePath, "..": RulePath,
		"/model/MatMul": RuleOdd, `C:\x`: RuleOdd, "a\x00b": RuleOdd, "a\u202eb": RuleOdd, "a\xff": RuleOdd, "a\nb": RuleOdd,
	} {
		if got := CheckName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
