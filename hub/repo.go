package hub

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
)

// remoteFile is a file of a repository and what its bytes must be.
type remoteFile struct {
	name    string
	size    int64
	sha256  string // of large files
	gitSHA1 string // of small ones: git's blob id
	repo    string // org/name
	commit  string
}

// listing is the part of the hub's answer to /api/models/… that is read.
type listing struct {
	SHA      string `json:"sha"`
	Siblings []struct {
		Name   string `json:"rfilename"`
		Size   *int64 `json:"size"`
		BlobID string `json:"blobId"`
		LFS    *struct {
			SHA256 string `json:"sha256"`
			Size   int64  `json:"size"`
		} `json:"lfs"`
	} `json:"siblings"`
}

// needed are the files beside the weights that the engine and the tokenizer read.
var needed = []string{
	"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
	"chat_template.jinja", "chat_template.json", "special_tokens_map.json", "model.safetensors.index.json",
}

var (
	hexDigest = regexp.MustCompile(`^[0-9a-f]+$`)
	ggufShard = regexp.MustCompile(`-\d{5}-of-\d{5}\.gguf$`)
)

// fetchRepo downloads a model of the Hugging Face hub into stage.
func (h *Hub) fetchRepo(ctx context.Context, r reference, stage string) (*Model, error) {
	all, commit, err := h.list(ctx, r)
	if err != nil {
		return nil, err
	}
	files, err := choose(r, all)
	if err != nil {
		return nil, err
	}
	for i := range files {
		if err := h.complete(ctx, &files[i]); err != nil {
			return nil, err
		}
	}
	source := h.cfg.Endpoint + "/" + r.name
	done, err := h.download(ctx, r.String(), source, files, stage)
	if err != nil {
		return nil, err
	}
	return &Model{Source: source, Revision: commit, Files: done}, nil
}

// list asks the hub for the files of a repository and their digests.
func (h *Hub) list(ctx context.Context, r reference) ([]remoteFile, string, error) {
	revision := r.revision
	if revision == "" {
		revision = "main"
	}
	what := "model " + r.name
	if r.revision != "" {
		what += " at revision " + r.revision
	}
	var l listing
	err := h.web.retry(ctx, func() (bool, error) {
		req, err := h.web.request(ctx, http.MethodGet, "api/models", r.name, "revision", revision)
		if err != nil {
			return false, err
		}
		req.URL.RawQuery = "blobs=true"
		resp, err := h.web.http.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if err := h.web.check(resp, what); err != nil {
			return false, err
		}
		l = listing{}
		if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxListingBytes), &l); err != nil {
			return false, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s lists %s in a form that cannot be read; is HF_ENDPOINT a Hugging Face hub?", resp.Request.URL.Host, r.name), Err: err}
		}
		return true, nil
	})
	if err != nil {
		return nil, "", err
	}
	return l.files(r, h.cfg.Endpoint)
}

// files checks what the hub lists.
func (l *listing) files(r reference, source string) ([]remoteFile, string, error) {
	commit := l.SHA
	if len(commit) > 64 || !hexDigest.MatchString(commit) {
		commit = r.revision
		if commit == "" {
			commit = "main"
		}
	}
	if len(l.Siblings) > maxRepoFiles {
		return nil, "", &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s/%s lists %d files, more than %d", source, r.name, len(l.Siblings), maxRepoFiles)}
	}
	var all []remoteFile
	for _, s := range l.Siblings {
		if !safeName(s.Name) {
			if wanted(s.Name) {
				return nil, "", hostile(source+"/"+r.name, s.Name)
			}
			continue // a name this disk cannot hold, of a file nobody needs
		}
		f := remoteFile{name: s.Name, size: -1, repo: r.name, commit: commit}
		if s.Size != nil {
			f.size = *s.Size
		}
		if len(s.BlobID) == 40 && hexDigest.MatchString(s.BlobID) {
			f.gitSHA1 = s.BlobID
		}
		if s.LFS != nil {
			f.gitSHA1 = "" // git's blob is the pointer, not the file
			if len(s.LFS.SHA256) == 64 && hexDigest.MatchString(s.LFS.SHA256) {
				f.sha256 = s.LFS.SHA256
			}
			if f.size < 0 {
				f.size = s.LFS.Size
			}
		}
		all = append(all, f)
	}
	return all, commit, nil
}

// wanted says whether a file name, wherever it claims to lie, is of a kind that
// would be fetched.
func wanted(name string) bool {
	base := path.Base(strings.ReplaceAll(name, `\`, "/"))
	return slices.Contains(needed, base) || strings.HasSuffix(base, ".safetensors") || strings.HasSuffix(base, ".gguf")
}

// choose picks the files a model needs: the named .gguf, or the safetensors with
// their companions, or the only .gguf there is.
func choose(r reference, all []remoteFile) ([]remoteFile, error) {
	if r.file != "" {
		return chooseFile(r, all)
	}
	var weights, rest, ggufs []remoteFile
	sharded := slices.ContainsFunc(all, func(f remoteFile) bool {
		return strings.HasPrefix(f.name, "model") && strings.HasSuffix(f.name, ".safetensors")
	})
	for _, f := range all {
		switch {
		case strings.HasSuffix(f.name, ".gguf"):
			ggufs = append(ggufs, f)
		case strings.Contains(f.name, "/"):
		case strings.HasSuffix(f.name, ".safetensors"):
			// Some publishers put a second copy beside the files that the index
			// names, such as consolidated.safetensors.
			if !sharded || strings.HasPrefix(f.name, "model") {
				weights = append(weights, f)
			}
		case slices.Contains(needed, f.name):
			rest = append(rest, f)
		}
	}
	switch {
	case len(weights) > 0:
		return append(rest, weights...), nil
	case len(ggufs) == 1 && !ggufShard.MatchString(ggufs[0].name):
		return ggufs, nil
	case len(ggufs) > 0:
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s holds several .gguf files; choose one as %s:FILE:%s", r.name, r.name, names(ggufs))}
	}
	return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: r.name + " holds neither safetensors nor a .gguf file (PyTorch .bin files are not read); choose another repository"}
}

// chooseFile finds the .gguf file that r names, in full or by a part of its name
// that no other has, such as Q4_K_M.
func chooseFile(r reference, all []remoteFile) ([]remoteFile, error) {
	var ggufs, like []remoteFile
	for _, f := range all {
		if !strings.HasSuffix(strings.ToLower(f.name), ".gguf") {
			continue
		}
		if f.name == r.file {
			like = []remoteFile{f}
			break
		}
		ggufs = append(ggufs, f)
		if strings.Contains(strings.ToLower(f.name), strings.ToLower(r.file)) {
			like = append(like, f)
		}
	}
	if len(like) != 1 {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "model_not_found", Message: fmt.Sprintf("%s holds no .gguf file %q; it holds:%s", r.name, r.file, names(ggufs))}
	}
	if ggufShard.MatchString(like[0].name) {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s is one part of a split .gguf; split files are not read: choose a whole one", like[0].name)}
	}
	return like, nil
}

func names(files []remoteFile) string {
	const most = 40
	var b strings.Builder
	for i, f := range files {
		if i == most {
			fmt.Fprintf(&b, "\n  … and %d more", len(files)-most)
			break
		}
		b.WriteString("\n  " + f.name)
	}
	if len(files) == 0 {
		return " none"
	}
	return b.String()
}

// complete asks for the size and digest of a file that the listing left out, as
// some mirrors do.
func (h *Hub) complete(ctx context.Context, f *remoteFile) error {
	if f.size < 0 || f.sha256 == "" && f.gitSHA1 == "" {
		if err := h.web.retry(ctx, func() (bool, error) { return false, h.head(ctx, f) }); err != nil {
			return err
		}
	}
	if f.size < 0 || f.size > maxFileBytes {
		return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s/%s does not say a sensible size for %s (%d)", h.cfg.Endpoint, f.repo, f.name, f.size)}
	}
	if f.sha256 == "" && f.gitSHA1 == "" {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("%s/%s publishes no checksum for %s, so it is not fetched; use https://huggingface.co or another mirror", h.cfg.Endpoint, f.repo, f.name)}
	}
	return nil
}

// head reads the metadata of a file from the headers of its first answer: those
// of a redirect belong to the hub, those behind it to a store.
func (h *Hub) head(ctx context.Context, f *remoteFile) error {
	req, err := h.web.request(ctx, http.MethodHead, f.repo, "resolve", f.commit, f.name)
	if err != nil {
		return err
	}
	resp, err := h.web.direct.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 400 {
		return h.web.check(resp, "file "+f.name+" of "+f.repo)
	}
	size := resp.Header.Get("X-Linked-Size")
	if size == "" && resp.StatusCode == http.StatusOK {
		size = resp.Header.Get("Content-Length")
	}
	if n, err := strconv.ParseInt(size, 10, 64); err == nil && f.size < 0 {
		f.size = n
	}
	etag := resp.Header.Get("X-Linked-Etag")
	if etag == "" {
		etag = resp.Header.Get("ETag")
	}
	etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
	switch {
	case !hexDigest.MatchString(etag):
	case len(etag) == 64:
		f.sha256 = etag
	case len(etag) == 40:
		f.gitSHA1 = etag
	}
	return nil
}

// verified compares a downloaded file with its published digest and returns its
// SHA-256.
func (f *remoteFile) verified(ctx context.Context, dir, source string, p *progress) (string, error) {
	at := filepath.Join(dir, filepath.FromSlash(f.name)+partSuffix)
	sum, err := hashFile(ctx, at, sha256.New(), p)
	if err != nil {
		return "", err
	}
	if f.sha256 != "" {
		if sum != f.sha256 {
			return "", mismatch(f.name, source, "SHA-256 "+sum, f.sha256)
		}
		return sum, nil
	}
	blob, err := hashFile(ctx, at, gitBlob(f.size), nil)
	if err != nil {
		return "", err
	}
	if blob != f.gitSHA1 {
		return "", mismatch(f.name, source, "git blob id "+blob, f.gitSHA1)
	}
	return sum, nil
}
