package coreml

import "testing"

// TestSchema holds that what the scan looks at is in the schema.
func TestSchema(t *testing.T) {
	m, err := model()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"specificationVersion", "description", "neuralNetwork", "mlProgram", "customModel", "linkedModel", "pipeline", "serializedModel"} {
		if m.Field(name) == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if !ops()["const"] || !ops()["conv"] || ops()[""] {
		t.Error("the list of operations is not as it should be")
	}
}
