// Package fs is the connector to files on disk. It lists a file, or a folder
// whole: hidden files, any extension, and what cannot be read as an item that
// says why. It opens regular files only, and no folder on the way to one
// through a symbolic link, so that nothing swapped under it leads elsewhere.
package fs

import (
	"github.com/cavra/cavra/sdk/connector"
)

// The bounds of a listing. What is beyond them is an item that says so.
const (
	// maxDepth is in folders below the root.
	maxDepth = 256
	// maxPath is in bytes of a path as it is listed.
	maxPath = 30 << 10
)

// markers are the files that make the folder that holds one a bundle: what
// loads a model begins with them and then opens others beside them.
var markers = map[string]bool{
	"config.json":                  true,
	"model_index.json":             true,
	"MLmodel":                      true,
	"saved_model.pb":               true,
	"adapter_config.json":          true,
	"tokenizer_config.json":        true,
	"modules.json":                 true,
	"hubconf.py":                   true,
	"config.pbtxt":                 true,
	"model.safetensors.index.json": true,
	"pytorch_model.bin.index.json": true,
}

// Connector lists and opens files. A root is an absolute path.
type Connector struct{}

// New returns the connector.
func New() *Connector { return &Connector{} }

// Describe says what the connector is.
func (*Connector) Describe() connector.Description {
	return connector.Description{Name: "fs", Version: "0.1.0"}
}
