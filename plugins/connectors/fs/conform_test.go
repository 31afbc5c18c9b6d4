package fs

import (
	"os"
	"testing"

	"github.com/cavra/cavra/sdk/conform"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/plugin"
)

func scope(t *testing.T) conform.Scope {
	root := tree(t, "bad\xff", "a%41", "dir/f", "dir/.g", "dangling -> x", "config.json", "pipe|", "l -> dir/f")
	if err := os.WriteFile(root+"/empty", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return conform.Scope{Root: root, Missing: root + "/gone", Want: map[string][]byte{
		"bad%FF": []byte("bad\xff"), "a%2541": []byte("a%41"), "dir/f": []byte("dir/f"), "dir/.g": []byte("dir/.g"),
		"config.json": []byte("config.json"), "l": []byte("dir/f"), "empty": nil,
	}}
}

func TestConformance(t *testing.T) {
	conform.Connector(t, func() connector.Connector { return New() }, scope(t))
}

func TestConformanceOverTheWire(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := plugin.Launch(t.Context(), plugin.Config{Path: self})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Connector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conform.Connector(t, func() connector.Connector { return c }, scope(t))
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
