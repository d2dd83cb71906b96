package openai

import "strconv"

// ModelInfo describes a served model in GET /v1/models.
type ModelInfo struct {
	ID string
	// Parent is the model that an adapter belongs to; empty for a model.
	Parent string
	// Created is in seconds since 1970.
	Created int64
	// ContextLength is vLLM's max_model_len, in tokens.
	ContextLength int
}

// AppendModel appends one model's object.
func AppendModel(dst []byte, m ModelInfo) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, m.ID)
	dst = append(dst, `,"object":"model","created":`...)
	dst = strconv.AppendInt(dst, m.Created, 10)
	if m.Parent != "" {
		dst = appendString(append(dst, `,"parent":`...), m.Parent)
	}
	dst = append(dst, `,"owned_by":"dynamo","max_model_len":`...)
	return append(strconv.AppendInt(dst, int64(m.ContextLength), 10), '}')
}

// AppendModels appends the list of models.
func AppendModels(dst []byte, ms []ModelInfo) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	for i, m := range ms {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendModel(dst, m)
	}
	return append(dst, "]}"...)
}

// AppendVersion appends the answer of GET /version.
func AppendVersion(dst []byte, version string) []byte {
	dst = append(dst, `{"version":`...)
	return append(appendString(dst, version), '}')
}
