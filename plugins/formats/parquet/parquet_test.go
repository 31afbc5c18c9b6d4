package parquet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats/cursor"
)

// TestThrift reads fields, and steps over those of every type.
func TestThrift(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  []int
		ok    bool
	}{
		"numbers":             {"\x15\x02\x16\x04\x00", []int{1, 2}, true},
		"a long id":           {"\x05\x28\x02\x00", []int{20}, true},
		"texts and lists":     {"\x18\x02ab\x19\x25\x02\x04\x1c\x15\x02\x00\x11\x17" + strings.Repeat("x", 8) + "\x00", []int{1, 2, 3, 4, 5}, true},
		"a list that lies":    {"\x19\xf5\xff\xff\xff\xff\x0f\x00", []int{1}, false},
		"a text that lies":    {"\x18\xff\x0fab", []int{1}, false},
		"a number that lies":  {"\x16" + strings.Repeat("\xff", 12), []int{1}, false},
		"a type that is none": {"\x1e\x00", []int{1}, false},
		"cut short":           {"\x15", []int{1}, false},
	} {
		r := &thrift{Reader: cursor.New(strings.NewReader(c.bytes), int64(len(c.bytes)))}
		var got []int
		r.fields(0, func(id int, kind byte) {
			got = append(got, id)
			r.skip(kind, 0)
		})
		if diff := cmp.Diff(c.want, got); diff != "" || r.Ok() != c.ok {
			t.Errorf("%s: ok is %v\n%s", name, r.Ok(), diff)
		}
	}
}
