// Package kvindex answers which workers hold how much of a sequence in their KV
// caches.
package kvindex
