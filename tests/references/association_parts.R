# References of the parts around the models (agreement, splines, discrimination, ranks) for tests/test_association_parts.py, from R.
# Run in this folder after make_eyes.py:
#   Rscript association_parts.R
# Debian packages: r-cran-psych (ICC), r-cran-hmisc (restricted cubic spline), r-cran-proc (DeLong)
suppressMessages({library(psych); library(Hmisc); library(pROC)})
eyes <- read.csv("eyes.csv")
out <- data.frame()
add <- function(part, term, value) out <<- rbind(out, data.frame(part = part, term = as.character(term), value = as.numeric(value)))

pairs <- do.call(rbind, lapply(split(eyes$iop, eyes$subject), function(v) if (length(v) >= 2) v[1:2]))
icc <- suppressMessages(suppressWarnings(ICC(pairs, lmer = FALSE)))$results[1, ]  # ICC1: one-way, single rater
add("icc", "estimate", icc$ICC); add("icc", "low", icc[["lower bound"]]); add("icc", "high", icc[["upper bound"]])

knots <- quantile(eyes$x, c(0.05, 0.35, 0.65, 0.95), type = 7)
basis <- rcspline.eval(eyes$x, knots = knots, inclx = TRUE, norm = 2)
for (i in c(1, 50, 120, 200, 267)) for (j in 1:3) add(paste("spline row", i), j, basis[i, j])

first <- eyes[!duplicated(eyes$subject), ]
a <- roc(first$y, first$x, direction = "<", quiet = TRUE); b <- roc(first$y, first$age, direction = "<", quiet = TRUE)
add("delong", "auc x", auc(a)); add("delong", "auc age", auc(b))
add("delong", "var x", var(a, method = "delong")); add("delong", "var age", var(b, method = "delong")); add("delong", "cov", cov(a, b, method = "delong"))

r <- cor(eyes[, c("x", "age", "iop", "count")], method = "spearman")
for (i in 1:3) for (j in (i + 1):4) add("spearman", paste(i, j), r[i, j])
l <- abs(eigen(r)$values)
add("li-ji", "m_eff", sum((l >= 1) + (l - floor(l))))
write.csv(format(out, digits = 15), "association_parts_r.csv", row.names = FALSE, quote = FALSE)
writeLines(c(R.version.string, sapply(c("psych", "Hmisc", "pROC"), function(p) paste(p, packageVersion(p)))), "association_parts_r_versions.txt")
