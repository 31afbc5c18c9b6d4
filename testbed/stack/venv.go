package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cavra/cavra/schemas/predicate"
)

// Venv makes a virtual environment of pinned packages in the folder cache, once,
// and returns its folder. pinned is a requirements file that names every package:
// none is added. Other pins make another environment.
func Venv(ctx context.Context, cache, name string, pinned []byte) (string, error) {
	venv := filepath.Join(cache, name+"-"+predicate.DigestOf(pinned).Hex()[:12])
	if _, err := os.Stat(venv); err == nil {
		return venv, nil
	}
	requirements := venv + ".txt"
	if err := errors.Join(os.MkdirAll(cache, 0o755), os.WriteFile(requirements, pinned, 0o644)); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", venv},
		{filepath.Join(venv, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", requirements},
	} {
		out, err := Command(ctx, nil, args[0], args[1:]...)
		if err == nil && out.Code != 0 {
			err = fmt.Errorf("%s: exit code %d: %s%s", args[0], out.Code, out.Stdout, out.Stderr)
		}
		if err != nil {
			return "", errors.Join(fmt.Errorf("install %s (python3 with venv and PyPI are needed): %w", name, err), os.RemoveAll(venv))
		}
	}
	return venv, nil
}
