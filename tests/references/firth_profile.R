# Profiles of Firth's penalised likelihood for tests/test_association_references.py, from R. Run in this folder after make_eyes.py:
#   Rscript firth_profile.R
# No package is needed: log L + 1/2 log |I| (Heinze & Schemper 2002, as in logistf) is written down and maximised over the other
# coefficients by R's own optimisers. brglm2 gives Wald intervals of such fits, logistf is no Debian package, and the profile of brglm
# has no upper end for the separated marker.
eyes <- read.csv("eyes.csv")
out <- data.frame()
add <- function(model, term, what, value) out <<- rbind(out, data.frame(model = model, term = term, what = what, value = value))

penalised <- function(b, X, y) {
  eta <- as.vector(X %*% b); p <- plogis(eta)
  sum(y * plogis(eta, log.p = TRUE) + (1 - y) * plogis(-eta, log.p = TRUE)) + 0.5 * as.numeric(determinant(crossprod(X * sqrt(p * (1 - p))))$modulus)
}
score <- function(b, X, y) {
  p <- plogis(as.vector(X %*% b)); w <- p * (1 - p)
  h <- w * rowSums((X %*% solve(crossprod(X * sqrt(w)))) * X)
  as.vector(crossprod(X, y - p + h * (0.5 - p)))
}
best <- function(start, X, y, fixed = NULL, at = NULL) {
  free <- setdiff(seq_len(ncol(X)), fixed)
  whole <- function(b) { v <- start; v[free] <- b; if (!is.null(fixed)) v[fixed] <- at; v }
  fit <- optim(start[free], function(b) -penalised(whole(b), X, y), function(b) -score(whole(b), X, y)[free], method = "BFGS",
               control = list(reltol = 1e-15, maxit = 10000))
  list(par = whole(fit$par), value = -fit$value)
}

for (model in c("rare ~ marker + age", "rare ~ x + age", "y ~ marker + sex")) {
  formula <- as.formula(model)
  X <- model.matrix(formula, eyes); y <- eyes[[all.vars(formula)[1]]]
  top <- best(rep(0, ncol(X)), X, y)
  for (j in seq_len(ncol(X))) {
    drop <- function(at) { v <- top$par; v[j] <- at; 2 * (top$value - best(v, X, y, j, at)$value) }
    excess <- function(at) drop(at) - qchisq(0.95, 1)
    add(model, colnames(X)[j], "profile estimate", top$par[j])
    for (side in c(-1, 1)) {
      far <- 1; while (excess(top$par[j] + side * far) < 0) far <- 2 * far
      ends <- sort(c(top$par[j], top$par[j] + side * far))
      add(model, colnames(X)[j], c("profile lower", NA, "profile upper")[side + 2], uniroot(excess, ends, tol = 1e-12)$root)
    }
    add(model, colnames(X)[j], "profile ratio of no effect", drop(0))
  }
}
write.csv(format(out, digits = 12), "firth_profile_r.csv", row.names = FALSE, quote = FALSE)
writeLines(R.version.string, "firth_profile_r_versions.txt")
