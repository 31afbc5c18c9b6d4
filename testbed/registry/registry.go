// Package registry is a small registry over HTTPS for the tests of connectors.
package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// Serve begins to serve files at the root /models to whoever bears the token, with a
// certificate of its own. The caller closes the server.
func Serve(files map[string][]byte, token string) *httptest.Server {
	return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, "/models/")
		content, known := files[path]
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.WriteHeader(http.StatusUnauthorized)
		case ok && path == "index.json":
			entries := []map[string]any{}
			for path, b := range files {
				entries = append(entries, map[string]any{"path": path, "size": len(b), "revision": fmt.Sprintf("%x", sha256.Sum256(b))})
			}
			_ = json.NewEncoder(w).Encode(entries)
		case ok && known:
			http.ServeContent(w, r, path, time.Time{}, bytes.NewReader(content))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
}

// Authority is the certificate of a server in PEM.
func Authority(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}
