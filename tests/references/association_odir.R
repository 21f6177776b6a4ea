# Reference estimates on the ODIR-derived table (odir_table.py), for tests/test_association_references.py. Run in this folder:
#   python odir_table.py <folder with manifest.csv> /tmp/odir_eyes.csv && Rscript association_odir.R /tmp/odir_eyes.csv
# Debian packages: r-cran-geepack r-cran-ordinal r-cran-brglm2 r-cran-sandwich
suppressMessages({library(geepack); library(ordinal); library(brglm2); library(sandwich)})
eyes <- read.csv(commandArgs(trailingOnly = TRUE)[1])
out <- data.frame()
add <- function(model, term, estimate, se = NA) out <<- rbind(out, data.frame(model = model, term = term, estimate = estimate, se = se))
for (column in names(eyes)) add("table", column, sum(eyes[[column]], na.rm = TRUE), sum(!is.na(eyes[[column]])))

fits <- list(binomial = diabetic ~ age + sex + right, gaussian = grade ~ age + sex + right, poisson = findings ~ age + sex + right)
for (family in names(fits)) for (corstr in c("exchangeable", "independence")) {
  used <- eyes[complete.cases(eyes[all.vars(fits[[family]])]), ]
  fit <- geeglm(fits[[family]], id = subject, data = used, family = family, corstr = corstr, control = geese.control(epsilon = 1e-13, maxit = 1000))
  s <- coef(summary(fit))
  for (t in rownames(s)) add(paste("geepack", family, corstr), t, s[t, "Estimate"], s[t, "Std.err"])
  if (corstr == "exchangeable") add(paste("geepack", family, corstr), "alpha", fit$geese$alpha)
}

used <- eyes[!is.na(eyes$diabetic), ]
logit <- glm(diabetic ~ age + sex + right, data = used, family = binomial, control = glm.control(epsilon = 1e-14, maxit = 100))
robust <- sqrt(diag(vcovCL(logit, cluster = used$subject, type = "HC0", cadjust = FALSE)))
for (t in names(coef(logit))) add("sandwich binomial", t, coef(logit)[t], robust[t])

used <- eyes[!is.na(eyes$grade), ]
ordered <- clm(factor(grade) ~ age + sex + right, data = used, control = clm.control(gradTol = 1e-12, maxIter = 200))
robust <- sqrt(diag(vcovCL(ordered, cluster = used$subject, type = "HC0", cadjust = FALSE)))
for (t in c("age", "sex", "right")) add("ordinal clustered", t, coef(ordered)[t], robust[t])

for (outcome in c("glaucoma", "myopia")) {
  used <- eyes[!is.na(eyes[[outcome]]), ]
  firth <- glm(as.formula(paste(outcome, "~ age + sex + right")), data = used, family = binomial, method = "brglmFit", type = "AS_mean",
               epsilon = 1e-11, maxit = 10000)
  s <- coef(summary(firth))
  for (t in rownames(s)) add(paste("brglm2", outcome), t, s[t, "Estimate"], s[t, "Std. Error"])
}

write.csv(format(out, digits = 15), "association_odir_r.csv", row.names = FALSE, quote = FALSE)
