/* A module that opens only when libcublasLt.so.99 was found. */
int stray_cublaslt(void);
__attribute__((visibility("default"))) int needs_cublaslt(void);
int needs_cublaslt(void) {
    return stray_cublaslt();
}
