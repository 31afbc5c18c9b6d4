package formats

import (
	"context"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/secret"
)

// written are formats whose content is text that people write or tools write for
// them; described are those that begin with a description in text.
var (
	written   = map[string]bool{"text": true, "json": true, "config": true, "yaml": true, "python": true, "jinja": true, "script": true, "html": true, "xml": true}
	described = map[string]bool{"safetensors": true, "gguf": true}
)

// secrets looks for credentials in text, and in the description that a container
// of weights begins with.
func secrets(ctx context.Context, v *content.Visit) error {
	switch {
	case written[v.Format]:
		return secret.Scan(ctx, v, secret.MaxBytes)
	case described[v.Format]:
		return secret.Scan(ctx, v, secret.MetadataBytes)
	}
	return nil
}
