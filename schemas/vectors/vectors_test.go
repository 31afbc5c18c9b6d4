package vectors

import (
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

func TestPayloads(t *testing.T) {
	accepted, err := AcceptedPayloads()
	if err != nil || len(accepted) == 0 {
		t.Fatalf("%d accepted payloads, %v", len(accepted), err)
	}
	for _, v := range accepted {
		if _, err := predicate.Parse(v.Data); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	refused, err := RefusedPayloads()
	if err != nil || len(refused) == 0 {
		t.Fatalf("%d refused payloads, %v", len(refused), err)
	}
	for _, v := range refused {
		if _, err := predicate.Parse(v.Data); err == nil {
			t.Errorf("%s: accepted", v.Name)
		}
	}
}
