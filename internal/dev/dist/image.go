package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageName is what the image is called where it is loaded.
const imageName = "ghcr.io/unthunk/unthunk"

// writeImage writes an image for all architectures, an OCI layout in a tar. In it is the
// binary and nothing else.
func writeImage(builds []build, v version, src source, out string) (err error) {
	labels := map[string]string{
		"org.opencontainers.image.title":    "unthunk",
		"org.opencontainers.image.source":   "https://" + modulePath,
		"org.opencontainers.image.revision": src.commit,
		"org.opencontainers.image.version":  v.String(),
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	all := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range builds {
		img, err := image(b, labels, v1.Time{Time: src.at})
		if err != nil {
			return fmt.Errorf("make image of %s: %w", b.arch, err)
		}
		all = mutate.AppendManifests(all, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: b.arch}},
		})
	}
	// The names that containerd, and that podman and skopeo, give what they load.
	tag := v.String()
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: all, Descriptor: v1.Descriptor{
		Annotations: map[string]string{
			"io.containerd.image.name":          imageName + ":" + tag,
			"org.opencontainers.image.ref.name": tag,
		},
	}})
	dir, err := os.MkdirTemp(filepath.Dir(out), "image-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if _, err := layout.Write(dir, index); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	name := filepath.Join(out, fmt.Sprintf("unthunk-%s-image.oci.tar", tag))
	return writeFile(name, func(f *os.File) error { return archive(f, os.DirFS(dir), src.at) })
}

// image is the image of one architecture. It runs as root, with the capabilities that the
// container is given: unthunk drops those that the verb does not need.
func image(b build, labels map[string]string, at v1.Time) (v1.Image, error) {
	binary, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	if err := w.WriteHeader(&tar.Header{Name: "unthunk", Mode: 0o755, Size: int64(len(binary)), ModTime: at.Time}); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	base, err = mutate.ConfigFile(base, &v1.ConfigFile{
		OS: "linux", Architecture: b.arch, Created: at, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: []string{"/unthunk"}, WorkingDir: "/", Labels: labels},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{Created: at, CreatedBy: "unthunk dist"}})
}
