package predicate

import "embed"

// Schemas holds the JSON Schemas (draft 2020-12) of the statements, one file a
// predicate and common.schema.json. They say the same as Validate but for what
// JSON Schema cannot: sums, orders and the canonical spelling.
//
//go:embed *.schema.json
var Schemas embed.FS
