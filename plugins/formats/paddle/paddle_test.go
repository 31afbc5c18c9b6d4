package paddle

import "testing"

// TestSchema holds that what the scan looks at is in the schema and the list.
func TestSchema(t *testing.T) {
	s, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if s["OpDesc"].Field("type") == nil || s["BlockDesc"].Field("parent_idx") == nil || s["VarType.TensorDesc"].Field("dims") == nil {
		t.Error("the schema is not as it should be")
	}
	for op, want := range map[string]bool{"relu": true, "conv2d": true, "unheard": false, "": false} {
		if ops()[op] != want {
			t.Errorf("%q: known is %v", op, !want)
		}
	}
}
