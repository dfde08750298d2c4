/* Stands for cuBLASLt where the loader does not look. */
__attribute__((visibility("default"))) int stray_cublaslt(void);
int stray_cublaslt(void) {
    return 1;
}
