package kafka

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed pom.xml
var pom []byte

//go:embed jars.sha256
var digests []byte

// The plugin is pinned as well: it decides what is copied.
const copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// Fetch makes sure that cache holds the broker's jars with the digests on
// record, by Maven if they are not there yet, and returns their folder.
func Fetch(ctx context.Context, cache string) (string, error) {
	sum := sha256.Sum256(append(bytes.Clone(pom), digests...))
	dir := filepath.Join(cache, hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, verify(dir)
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("find jars: %w", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what is left of a failed attempt
	if err := resolve(ctx, tmp); err != nil {
		return "", err
	}
	jars := filepath.Join(tmp, "jars")
	if err := verify(jars); err != nil {
		return "", err
	}
	if err := os.Rename(jars, dir); err != nil {
		if verifyErr := verify(dir); verifyErr == nil {
			return dir, nil // another test was faster
		}
		return "", fmt.Errorf("keep jars: %w", err)
	}
	return dir, nil
}

func resolve(ctx context.Context, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), pom, 0o644); err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-B", "-q", copyGoal, "-DincludeScope=runtime",
		"-DoutputDirectory="+filepath.Join(dir, "jars"))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Apache Kafka by Maven (is mvn installed?): %w\n%s", err, out)
	}
	return nil
}

// verify holds the folder against jars.sha256: the same files, no other.
func verify(dir string) error {
	want := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(digests))
	for lines.Scan() {
		digest, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("read jars.sha256: line %q", lines.Text())
		}
		want[name] = digest
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("verify jars: %w", err)
	}
	for _, e := range entries {
		got, err := digest(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("verify jars: %w", err)
		}
		if want[e.Name()] != got {
			return fmt.Errorf("verify jars: %s in %s has digest %s, jars.sha256 says %q", e.Name(), dir, got, want[e.Name()])
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		return fmt.Errorf("verify jars: %d of jars.sha256 are missing in %s", len(want), dir)
	}
	return nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
