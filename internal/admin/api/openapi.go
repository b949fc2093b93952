package api

import _ "embed"

// OpenAPI is the document (OpenAPI 3.0, JSON) of all that the admin address and the control address answer. A test makes it of the
// types here and of their comments.
//
//go:embed openapi.json
var OpenAPI []byte
