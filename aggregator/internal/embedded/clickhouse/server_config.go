package clickhouse

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// element is a piece of the engine's configuration. The engine reads only the
// first of several elements with one name, so each is made once.
type element struct {
	name     string
	value    string
	children []*element
}

// set gives the element at path a value and makes those on the way.
func (e *element) set(path, value string) {
	for name := range strings.SplitSeq(path, "/") {
		i := slices.IndexFunc(e.children, func(c *element) bool { return c.name == name })
		if i < 0 {
			i = len(e.children)
			e.children = append(e.children, &element{name: name})
		}
		e = e.children[i]
	}
	e.value = value
}

func (e *element) encode(b *bytes.Buffer) error {
	fmt.Fprintf(b, "<%s>", e.name)
	if err := xml.EscapeText(b, []byte(e.value)); err != nil {
		return err
	}
	for _, c := range e.children {
		if err := c.encode(b); err != nil {
			return err
		}
	}
	fmt.Fprintf(b, "</%s>\n", e.name)
	return nil
}

func (e *element) write(path string) error {
	var b bytes.Buffer
	if err := e.encode(&b); err != nil {
		return fmt.Errorf("write engine configuration: %w", err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write engine configuration: %w", err)
	}
	return nil
}

// writeConfig writes the engine's configuration, which is derived whole from
// order at every start, and returns the main file's path.
func writeConfig(dir string, o order) (string, error) {
	users := filepath.Join(dir, "users.xml")
	main := filepath.Join(dir, "config.xml")
	c := element{name: "clickhouse"}
	c.set("users_config", users)
	c.set("timezone", "UTC")
	c.set("max_server_memory_usage", fmt.Sprint(o.Limits.MemoryBytes))
	c.set("merge_tree/min_free_disk_bytes_to_perform_insert", fmt.Sprint(o.Limits.FreeDiskBytes))
	if !o.FastUnsafe {
		c.set("merge_tree/fsync_after_insert", "1")
		c.set("merge_tree/fsync_part_directory", "1")
		// A merge replaces parts that were synced: what replaces them has to
		// be synced before they are removed, however small it is.
		c.set("merge_tree/min_rows_to_fsync_after_merge", "1")
		c.set("merge_tree/min_compressed_bytes_to_fsync_after_merge", "1")
	}
	if err := c.write(main); err != nil {
		return "", err
	}
	u := element{name: "clickhouse"}
	u.set("profiles/default/max_execution_time", fmt.Sprint(int(o.Limits.QueryTime.Seconds())))
	u.set("profiles/default/max_result_bytes", fmt.Sprint(o.Limits.ResultBytes))
	u.set("profiles/default/fsync_metadata", "1")
	u.set("profiles/default/session_timezone", "UTC")
	u.set("users/default/password", "")
	u.set("users/default/networks/ip", "::/0")
	u.set("users/default/profile", "default")
	u.set("users/default/quota", "default")
	u.set("quotas/default", "")
	return main, u.write(users)
}
