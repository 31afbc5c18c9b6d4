package corpus

import (
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// secretFiles are texts with secrets that nobody issued, put together here so that
// no scanner of this repository finds one.
func secretFiles() []ModelFile {
	token := "gh" + "p_" + "x7Kq2mZ9vB4nR8tY1wL5cD3fG6hJ0pS2aQ4e"
	key := "-----BEGIN RSA " + "PRIVATE KEY-----\n" + strings.Repeat("MIIEowIBAAKCAQEA7f3q\n", 8) + "-----END RSA " + "PRIVATE KEY-----\n"
	service := "data" + "dog_api_key"
	value := "4f8a1c9e2b7d6053f1e8a9c4" + "b2d7e6058a3c1f9e"
	return []ModelFile{
		set(predicate.Fail, "text", "secret: a token in prose", "Download it with "+token+" as the token.\n", "secret.token"),
		set(predicate.Fail, "json", "secret: a token in settings", `{"hidden_size": 8, "token": "`+token+`"}`, "secret.token"),
		set(predicate.Fail, "text", "secret: a private key", key, "secret.private-key"),
		set(predicate.Warn, "json", "secret: a key beside a service's name", `{"`+service+`": "`+value+`"}`, "secret.credential"),
		set(predicate.Pass, "text", "secret: names without secrets", "Set "+service+" and hf_token to yours; hf_hub_download does the rest.\n"),
	}
}
